"""Context Restoration: what an exchange of patches keeps, and that the system is Models Genesis with this corruption alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import batch, build, records

from models.contract import MethodError
from models.registry import get_method
from models.transforms import corrupt


def image(size=40, channels=3):
    return np.random.default_rng(0).integers(0, 256, (size, size + 16, channels), np.uint8)


def drawn(seed=0, count=10, patch=(1 / 16, 1 / 8)):
    return corrupt.drawn_swaps(40, 56, count, patch, np.random.default_rng(seed))


def test_patches_are_apart_and_of_the_sides_asked_for():
    pairs = [pair for seed in range(60) for pair in drawn(seed)]
    assert len(pairs) == 600
    for top, left, top_2, left_2, h, w in pairs:
        assert 2 <= h <= 5
        assert 3 <= w <= 7
        assert min(top, top_2) >= 0
        assert max(top, top_2) + h <= 40
        assert min(left, left_2) >= 0
        assert max(left, left_2) + w <= 56
        covered = np.zeros((40, 56), int)
        covered[top : top + h, left : left + w] += 1
        covered[top_2 : top_2 + h, left_2 : left_2 + w] += 1
        assert covered.max() == 1
    assert {p[4] for p in pairs} == {2, 3, 4, 5}
    assert {p[0] for p in pairs} >= {0, 1, 20, 36}


def test_values_stay_and_the_way_back_leads_to_the_image():
    x, swaps = image(), drawn(1)
    made = corrupt.swapped(x, swaps)
    assert (x == image()).all()
    assert (made != x).any()
    for channel in range(3):
        np.testing.assert_array_equal(np.sort(made[..., channel], None), np.sort(x[..., channel], None))
    np.testing.assert_array_equal(corrupt.swapped(made, swaps[::-1]), x)
    assert (made != x).any(-1).sum() <= sum(2 * h * w for *_, h, w in swaps)
    np.testing.assert_array_equal(corrupt.swapped(x, []), x)
    one, (top, left, top_2, left_2, h, w) = corrupt.swapped(x, swaps[:1]), swaps[0]
    np.testing.assert_array_equal(one[top : top + h, left : left + w], x[top_2 : top_2 + h, left_2 : left_2 + w])


def test_patches_of_which_two_find_no_place_are_left_out():
    assert corrupt.drawn_swaps(14, 14, 5, (0.95, 0.99), np.random.default_rng(0)) == []


@pytest.mark.parametrize("patch_max", [1 / 8, 0.25])
def test_it_is_genesis_with_the_other_corruptions_off(patch_max):
    """Samples, losses, gradients, to the last bit."""
    off = {"shuffle_p": 0.0, "curve_p": 0.0, "paint_p": 0.0, "swaps": 10}
    ours, theirs = (build(n, patch_max=patch_max, **o) for n, o in (("context_restoration", {}), ("genesis", off)))
    results = []
    for method in (ours, theirs):
        method.enter("pretrain")
        data = batch(method.train(), records(4))
        out = method(data)
        out.total.backward()
        results.append((dict(data), out.total, {n: p.grad for n, p in method.named_parameters()}))
    a, b = results
    assert a[0].keys() == b[0].keys()
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    assert torch.equal(a[1], b[1])
    assert a[2].keys() == b[2].keys()
    assert all(torch.equal(a[2][k], b[2][k]) for k in a[2])
    assert (a[0]["corrupted"] != (a[0]["target"].float() / 255).half()).any()


def test_the_loss_looks_good_from_the_start_and_the_diagnostics_tell():
    method = build("context_restoration")
    method.enter("pretrain")
    told = method(batch(method, records(6))).diagnostics
    assert told["restore_identity"] < 0.5 * told["restore_baseline"]
    assert 0 < told["changed"] < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"swaps": 0}, "method.swaps"),
        ({"patch_max": 0.6}, "method.patch_max"),
        ({"patch_min": 0.2}, "method.patch_min: 0.2 is above method.patch_max"),
        ({"shuffle_p": 0.5}, "method.shuffle_p: unknown key"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(MethodError) as raised:
        get_method("context_restoration").Options.parse(options)
    assert message in str(raised.value)

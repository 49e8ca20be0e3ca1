"""Views of one channel filtered by medpair itself: Pillow's pixels to the last bit, or nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from compiled import loading
from models.transforms.crops import Picture
from models.transforms.resampling import Resampler, rows_first, why_not_own

needs_numba = pytest.mark.skipif(bool(why_not_own()), reason="needs numba")


def pillow(image_HW: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None) -> np.ndarray:
    return np.asarray(Image.fromarray(image_HW).resize(size[::-1], Image.Resampling.BICUBIC, box))


@needs_numba
def test_pixels_are_those_of_pillow() -> None:
    """Any sizes, whole or a box of them: rows before columns, or after them."""
    rng, own = np.random.default_rng(0), Resampler(worth=0)
    for turn in range(600):
        H, W, h, w = (int(n) for n in rng.integers(1, [70, 90, 80, 100]))
        image_HW = (
            rng.integers(0, 256, (H, W), np.uint8) if turn % 2 else rng.integers(0, 2, (H, W)).astype(np.uint8) * 255
        )
        image_HW.flags.writeable = turn % 4 > 1  # what comes from Pillow cannot be written to
        box = None
        if turn % 3 == 0:
            (left, right), (top, bottom) = np.sort(rng.uniform(0, W, 2)), np.sort(rng.uniform(0, H, 2))
            box = float(left), float(top), float(right) + 1e-3 * (right < W - 1), float(bottom)
        size = h if turn % 5 else H, w if turn % 7 else W
        found = own.resampled(image_HW[..., None], size, box)
        if found is None:
            assert size == (H, W)
            assert box is None
            continue
        np.testing.assert_array_equal(found[..., 0], pillow(image_HW, size, box), err_msg=f"{H, W, size, box}")


@needs_numba
def test_what_it_does_not_do_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    own, grey = Resampler(worth=0), np.zeros((20, 30, 1), np.uint8)
    assert own.resampled(grey, (20, 30), None) is None
    assert own.resampled(np.repeat(grey, 3, -1), (40, 40), None) is None
    assert own.resampled(grey.astype(np.uint16), (40, 40), None) is None
    twice = Resampler(worth=3200)
    assert [twice.resampled(grey, (40, 40), None) is None for _ in range(2)] == [True, False]
    monkeypatch.setattr(loading, "why_not", lambda module: loading.NOT_INSTALLED)
    assert Resampler(worth=0).resampled(grey, (40, 40), None) is None


def test_the_order_of_passes_is_that_of_the_version() -> None:
    assert [rows_first((100, 100), size, "12.1.0") for size in ((10, 100), (99, 300))] == [False, False]
    assert [rows_first((100, 100), size, "13.0.0") for size in ((10, 100), (80, 90), (79, 90), (100, 300))] == [
        1,
        0,
        1,
        0,
    ]
    assert [rows_first((100, 100), size, "14.2.0.dev0") for size in ((99, 300), (100, 300))] == [None, False]


@needs_numba
def test_views_are_the_same_whoever_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    image_HWC = rng.integers(0, 256, (90, 120, 1), np.uint8)
    boxes = [tuple(sorted(rng.integers(0, 90, 2).tolist())) for _ in range(12)]
    views = []
    for worth in (0, 1 << 60):
        monkeypatch.setattr("models.transforms.crops.own", Resampler(worth))
        views.append([Picture(image_HWC).view((a, a, b + 1, b + 1), (48, 56)) for a, b in boxes])
    np.testing.assert_array_equal(views[0], views[1])

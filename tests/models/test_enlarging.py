"""Views of one channel enlarged by medpair itself: Pillow's pixels to the last bit, or nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models.transforms import enlarging
from models.transforms.crops import Picture
from models.transforms.enlarging import Enlarger, why_not_own

needs_numba = pytest.mark.skipif(bool(why_not_own()), reason="needs numba")


def pillow(image_HW: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None) -> np.ndarray:
    return np.asarray(Image.fromarray(image_HW).resize(size[::-1], Image.Resampling.BICUBIC, box))


@needs_numba
def test_pixels_are_those_of_pillow() -> None:
    """Any sizes whose rows do not become fewer; columns may."""
    rng, own = np.random.default_rng(0), Enlarger(worth=0)
    for turn in range(300):
        H, W, h, w = (int(n) for n in rng.integers(1, [70, 90, 80, 100]))
        image_HW = (
            rng.integers(0, 256, (H, W), np.uint8) if turn % 2 else rng.integers(0, 2, (H, W)).astype(np.uint8) * 255
        )
        box = None
        if turn % 3 == 0:
            (left, right), (top, bottom) = np.sort(rng.uniform(0, W, 2)), np.sort(rng.uniform(0, H, 2))
            box = float(left), float(top), float(right) + 1e-3 * (right < W - 1), float(bottom)
        size = max(h, H) if turn % 5 else H, w if turn % 7 else W
        found = own.enlarged(image_HW[..., None], size, box)
        if found is None:
            assert size == (H, W)
            assert box is None
            continue
        np.testing.assert_array_equal(found[..., 0], pillow(image_HW, size, box), err_msg=f"{H, W, size, box}")


@needs_numba
def test_what_it_does_not_do_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    own, grey = Enlarger(worth=0), np.zeros((20, 30, 1), np.uint8)
    assert own.enlarged(grey, (19, 40), None) is None
    assert own.enlarged(grey, (19, 40), (0.0, 0.5, 30.0, 20.0)) is None
    assert own.enlarged(grey, (20, 30), None) is None
    assert own.enlarged(np.repeat(grey, 3, -1), (40, 40), None) is None
    assert own.enlarged(grey.astype(np.uint16), (40, 40), None) is None
    twice = Enlarger(worth=3200)
    assert [twice.enlarged(grey, (40, 40), None) is None for _ in range(2)] == [True, False]
    monkeypatch.setattr(enlarging, "why_not_own", lambda: "numba is not installed")
    assert Enlarger(worth=0).enlarged(grey, (40, 40), None) is None


@needs_numba
def test_views_are_the_same_whoever_enlarges(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    image_HWC = rng.integers(0, 256, (90, 120, 1), np.uint8)
    boxes = [tuple(sorted(rng.integers(0, 90, 2).tolist())) for _ in range(12)]
    views = []
    for worth in (0, 1 << 60):
        monkeypatch.setattr("models.transforms.crops.own", Enlarger(worth))
        views.append([Picture(image_HWC).view((a, a, b + 1, b + 1), (48, 56)) for a, b in boxes])
    np.testing.assert_array_equal(views[0], views[1])

"""What a task may do to an image and its mask: cut and turned alike, by one draw."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import record

from models.view import Augmentation, DrawnAugmentation, RecordView
from trainer.downstream.predict import _decided


def turned(seed: int = 0, **change: float) -> DrawnAugmentation:
    return DrawnAugmentation(Augmentation(**change), np.random.default_rng(seed))


def places(height: int, width: int) -> np.ndarray:
    """An image whose two channels tell where a pixel was, 0 to 255 over a side."""
    row, column = np.mgrid[:height, :width]
    return np.stack([row * 255 / (height - 1), column * 255 / (width - 1)], -1).round().astype(np.uint8)


def test_a_crop_has_the_stated_area_and_fills_a_square():
    areas = []
    for seed in range(300):
        cut = turned(seed, crop=0.25).image(places(60, 90)).astype(float)
        assert cut.shape == (60, 60, 2)
        sides = [np.ptp(cut[..., c]) / 255 * n for c, n in ((0, 60), (1, 90))]
        areas.append(sides[0] * sides[1] / (60 * 90))
    assert 0.2 < min(areas) < 0.35 < 0.75 < max(areas) <= 1


def test_an_image_and_its_mask_are_changed_alike():
    for seed in range(20):
        image = np.zeros((64, 80, 3), np.uint8)
        image[20:40, 30:60] = 255
        change = turned(seed, crop=0.3, rotate=10, flip=0.5, shift=0.05, scale=0.1)
        whole, mask = change.image(image), change.mask((image[..., 0] > 0).astype(np.uint8))
        assert whole.shape[:2] == mask.shape == (64, 64)
        assert ((whole[..., 0] > 127) != mask).mean() < 0.06  # a rim of bilinear against nearest


def test_without_a_crop_nothing_of_the_draw_changes():
    image = places(40, 40)
    with_crop, without = turned(3, flip=0.5, rotate=9, crop=0.5), turned(3, flip=0.5, rotate=9)
    assert (with_crop.angle, with_crop.mirror) == (without.angle, without.mirror)
    assert np.array_equal(turned(3, crop=1.0).image(image), image)


@pytest.mark.parametrize(("side", "shape"), [(None, (64, 64, 3)), (32, (32, 32, 3))])
def test_a_view_tells_the_shape_that_it_gives(side, shape):
    made = record(0)
    made.fields["image"] = np.zeros((64, 90, 3), np.uint8)
    view = RecordView(made, ("image",), turned(crop=0.5), side)
    assert view.shape("image") == view.read("image").shape == shape
    plain = RecordView(made, ("image",), None, side)
    assert plain.shape("image") == plain.read("image").shape


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (64, 64)])
def test_padding_neither_stretches_nor_cuts(shape):
    made, rng = record(0), np.random.default_rng(0)
    H, W = shape
    made.fields["image"] = rng.integers(1, 255, (*shape, 3), dtype=np.uint8)
    made.fields["mask"] = rng.integers(0, 2, shape, dtype=np.uint8)
    view = RecordView(made, ("image", "mask"), None, None, pad=True)
    image, mask = view.read("image"), view.mask("mask", (0,))
    S = max(shape)
    assert view.shape("image") == image.shape == (S, S, 3)
    assert mask.shape == (S, S)
    assert np.array_equal(image[:H, :W], made.fields["image"])
    assert np.array_equal(mask[:H, :W], 1 - made.fields["mask"])
    assert image.sum() == made.fields["image"].sum(dtype=int)
    assert mask.sum() == (made.fields["mask"] == 0).sum(), "nothing is drawn where nothing is, also if 0 is the object"
    # The way back: what the encoder's grid says of the filled part is no pixel of the image.
    grid = RecordView(made, ("image", "mask"), None, 2 * S, pad=True).mask("mask", (0,))
    assert np.array_equal(_decided(grid[None].astype(np.float32), shape, True)[0], 1 - made.fields["mask"])
    assert _decided(np.ones((1, S, S), np.float32), shape, True).shape == (1, H, W)

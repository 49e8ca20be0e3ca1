"""Images of any dtype and any channels under every filter, and in every method that reads images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import PIXELS, build, record

from models.contract import MethodError
from models.transforms import crops, slices
from models.transforms.image import augment, fitted
from models.transforms.pixels import filtered
from models.view import Augmentation, DrawnAugmentation, scaled, shaped_mask, squared
from shards.pack.pack import pack
from shards.read.dataset import Dataset

METHODS = ("mgi", "mrm_relation", "mrm_record")
SIZE = 48


def film(dtype: type, channels: int = 1) -> np.ndarray:
    """A smooth bright blob; the same picture in every dtype, over its whole range."""
    y, x = np.mgrid[:SIZE, :SIZE]
    share = np.exp(-((y - 24) ** 2 + (x - 20) ** 2) / 200) * np.linspace(1, 0.5, channels)[:, None, None]
    top = 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return np.ascontiguousarray(np.moveaxis((share * 0.9 * top).astype(dtype), 0, -1))


CHANGES = {
    "mgi's size": lambda i: slices.resized(i, 32),
    "mgi's augmentation": lambda i: slices.augmented(i, np.random.default_rng(3), 15, 0.1, 0.5),
    "mrm_relation's rotation": lambda i: augment(i, np.random.default_rng(3), 15, 0.5),
    "mrm_record's crop": lambda i: crops.random_view(i, 32, (0.5, 1.0), 0.5, np.random.default_rng(3)),
    "mrm_record's view": lambda i: crops.centre_view(i, 32),
    "a task's size": lambda i: scaled(i, 32, Image.Resampling.BILINEAR),
    "a task's change": lambda i: DrawnAugmentation(
        Augmentation(15, 0.1, 0.1, 0.5, 0.1, 0.5), np.random.default_rng(3)
    ).image(i),
    "a task's square": squared,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_every_filter_is_the_same_for_every_dtype(name, channels, dtype):
    wide, narrow = CHANGES[name](film(dtype, channels)), CHANGES[name](film(np.uint8, channels))
    top = 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    assert wide.dtype == dtype
    assert wide.shape == narrow.shape
    assert np.abs(wide / top * 255 - narrow).max() < 4  # cut off at each of up to three steps
    assert wide.max() <= top * 1.1
    assert wide.std() > 0.05 * top


def test_filters_keep_whole_numbers_within_their_range():
    edge = np.zeros((SIZE, SIZE, 1), np.uint16)
    edge[:, 24:] = 65535
    out = filtered(edge, lambda p: p.resize((31, 31), Image.Resampling.BICUBIC))  # bicubic overshoots at edges
    assert out.dtype == np.uint16
    assert (out.min(), out.max()) == (0, 65535)


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The same film as 12 bits in a 16-bit PNG, as 8 bits, and with full opacity, each as a data set gives it back."""
    folder, found = tmp_path_factory.mktemp("films"), {}
    y, x = np.mgrid[:PIXELS, :PIXELS]
    share = np.exp(-((y - 30) ** 2 + (x - 24) ** 2) / 300)
    twelve, eight = np.round(share * 4095).astype(np.uint16), np.round(share * 255).astype(np.uint8)
    full = np.full_like(eight, 255)
    forms = {
        "12 bits": twelve,
        "8 bits": eight,
        "grey + opacity": np.dstack([eight, full]),
        "RGBA": np.dstack([eight, eight, eight, full]),
        "RGB": np.dstack([eight] * 3),
    }
    for name, pixels in forms.items():
        at: Path = folder / name.replace(" ", "_")
        at.mkdir()
        (at / "i.png").write_bytes(png(pixels))
        (at / "m.csv").write_text("sample,patient,split,field:image\na,a,train,i.png\n")
        pack(at / "m.csv", at / "out")
        found[name] = Dataset.open(at / "out")[0].read("image")
    return found


def arrays(method: str, image: np.ndarray) -> np.ndarray:
    built, made = build(method), record(0)
    made.fields["image"] = image
    built.enter("pretrain")
    return built.sample(made, np.random.default_rng(5)).arrays["image"].astype(int)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_sees_the_same_film_in_every_container(films, method):
    want = arrays(method, films["8 bits"])
    assert want.max() > 200
    for name, image in films.items():
        assert np.abs(arrays(method, image) - want).max() <= 1, name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_method_takes_images_from_elsewhere(method, channels, dtype):
    image = film(dtype, channels or 1)
    if channels in (2, 4):
        image[..., -1] = np.iinfo(dtype).max
    found = arrays(method, image[..., 0] if channels == 0 else image)
    assert found.max() > 60
    plain = film(np.uint8, 1 if channels < 3 else channels)[..., : 1 if channels < 3 else 3]
    assert np.abs(found - arrays(method, plain)).max() <= 3


@pytest.mark.parametrize("method", METHODS)
def test_numbers_without_a_range_are_refused(method):
    with pytest.raises(MethodError, match="an image of float32, whose range is not known"):
        arrays(method, film(np.float32, 3))


def test_fitted_leaves_opacity_out():
    image = film(np.uint8, 4)
    np.testing.assert_array_equal(fitted(image, 32), fitted(image[..., :3], 32))


def test_the_opacity_of_a_mask_is_not_the_object():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:5] = 255
    full = np.full_like(mask, 255)
    for form in (mask, mask[..., None], np.dstack([mask, full]), np.dstack([mask] * 3), np.dstack([mask] * 3 + [full])):
        np.testing.assert_array_equal(shaped_mask(form), mask > 0)
        np.testing.assert_array_equal(shaped_mask(form, values=(255,)), mask > 0)

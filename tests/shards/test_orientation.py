"""Photographs that are stored turned: turned as they are shown, masks with them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import SQUARE, Folder, H, W, encoded, exif, film, noise, without
from manifests import tar_of
from PIL import Image

from shards.check.lint import lint
from shards.errors import DataError
from shards.format.meaning import restate
from shards.format.orientation import orientation, upright
from shards.pack.adopt import adopt
from shards.read.canvas import Block, Canvas
from shards.read.dataset import Dataset


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "in")


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pixels_are_turned_as_pillow_turns_them(number, kind):
    from PIL import ImageOps

    ext, options = ("png", {}) if kind == "PNG" else ("jpg", {"quality": 100, "subsampling": 0})
    data = encoded(noise(), kind, exif=exif(number), **options)
    assert orientation(ext, data) == number
    with Image.open(io.BytesIO(data)) as image:
        want = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(upright(np.asarray(image), number), want)


def test_a_broken_orientation_is_none():
    good = encoded(noise(), "JPEG", exif=exif(6))
    at = good.index(b"Exif\0\0") + 6
    assert orientation("jpg", good) == 6
    assert orientation("jpg", good[:at] + b"\xff" * 20 + good[at + 20 :]) == 1
    assert orientation("jpg", encoded(noise(), "JPEG", exif=exif(77))) == 1
    assert orientation("jpg", b"Exif\0\0 nothing else") == 1


def stored_for(shown: np.ndarray, number: int) -> np.ndarray:
    """Pixels as a camera stores them so that `number` turns them into `shown`."""
    back = {6: 8, 8: 6}.get(number, number)
    return upright(shown, back)


@pytest.mark.parametrize("number", [3, 6])
def test_the_mask_of_a_turned_photograph_lies_on_it(folder, number):
    for i in range(2):
        shown = np.where(SQUARE[..., None] > 0, 220, noise(i) // 4).astype(np.uint8)
        photograph = encoded(stored_for(shown, number), "JPEG", quality=95, exif=exif(number))
        folder.add(photograph, encoded(SQUARE), ext="jpg")
    data, said = folder.pack()
    image, mask = data[0].read("image"), data[0].read("mask")[..., 0]
    assert image.shape == data[0].shape("image") == (H, W, 3)
    assert image[mask > 0].mean() > 200
    assert image[mask == 0].mean() < 60
    assert data.info.fields["image"].meaning == {"orientation": "exif"}
    assert "2 of 2 files carry an EXIF orientation (such as s0, s1), which is applied" in said
    assert not lint(data.path).problems
    assert not [w for w in lint(data.path).warnings if "EXIF" in str(w)]


def test_orientation_is_kept_as_asked(folder):
    photograph = noise()
    folder.add(encoded(photograph, exif=exif(6))).add(encoded(photograph))
    data, said = folder.pack(keep_orientation=True)
    np.testing.assert_array_equal(data[0].read("image"), photograph)
    assert data.info.fields["image"].meaning == {"orientation": "stored"}
    assert "pixels stay as stored, as asked" in said
    turned, _ = folder.pack("turned")
    np.testing.assert_array_equal(turned[0].read("image"), np.rot90(photograph, -1))
    np.testing.assert_array_equal(turned[1].read("image"), photograph)


def test_a_mask_of_the_size_before_turning_is_refused(folder):
    folder.add(encoded(noise(), exif=exif(6)), encoded(SQUARE)).add(encoded(noise(1)), encoded(SQUARE))
    with pytest.raises(DataError, match="'s0' 24 x 32 on 32 x 24"):
        folder.pack()
    data, _ = folder.pack("kept", keep_orientation=True)
    assert data[0].shape("mask")[:2] == data[0].shape("image")[:2]


def test_a_data_set_from_before_orientation_was_applied_is_told(folder):
    data, _ = (
        folder.add(encoded(noise(), "JPEG", exif=exif(3)), ext="jpg").add(encoded(noise(1), "JPEG"), ext="jpg").pack()
    )
    upright_ = data[0].read("image")
    path = without(data, "orientation")
    np.testing.assert_array_equal(Dataset.open(path)[0].read("image"), upright_[::-1, ::-1])
    report = lint(path)
    assert not report.problems
    assert "1 files carry an EXIF orientation (such as s0), and are read as stored" in str(report)
    adopt(path)
    np.testing.assert_array_equal(Dataset.open(path)[0].read("image"), upright_)
    assert "EXIF" not in str(lint(path))
    restate(path, {"image": {"orientation": "stored"}}, overwrite=True)
    assert "EXIF" not in str(lint(path))


def test_adopted_photographs_are_turned_too(tmp_path):
    tar_of(
        tmp_path / "a.tar",
        [
            ("a.image.jpg", encoded(noise(), "JPEG", quality=95, exif=exif(6))),
            ("b.image.jpg", encoded(noise(1), "JPEG", quality=95)),
            ("c.image.png", encoded(film(4095))),
        ],
    )
    with pytest.raises(DataError, match="differing dtypes"):
        adopt(tmp_path, patient_from_key=True)
    tar_of(
        tmp_path / "a.tar",
        [("a.image.jpg", encoded(noise(), "JPEG", exif=exif(6))), ("b.image.jpg", encoded(noise(1), "JPEG"))],
    )
    notes: list[str] = []
    bytes_before = (tmp_path / "a.tar").read_bytes()
    info = adopt(tmp_path, patient_from_key=True, notes=notes)
    assert info.fields["image"].meaning == {"orientation": "exif"}
    assert "1 of 2 files carry an EXIF orientation" in notes[0]
    assert Dataset.open(tmp_path)[0].read("image").shape == (W, H, 3)
    assert (tmp_path / "a.tar").read_bytes() == bytes_before
    assert adopt(tmp_path, patient_from_key=True, keep_orientation=True).fields["image"].meaning == {
        "orientation": "stored"
    }
    assert Dataset.open(tmp_path)[0].read("image").shape == (H, W, 3)


def test_an_image_that_is_decoded_into_its_batch_is_the_same(folder):
    for i in range(3):
        folder.add(encoded(noise(i), "JPEG", quality=95, exif=exif(3 if i == 0 else 1)), ext="jpg")
    turned, _ = folder.pack()
    kept, _ = folder.pack("kept", keep_orientation=True)
    for data in (turned, kept):
        block, alone = Block(3), [data[i].read("image") for i in range(3)]
        for slot in range(3):
            record = data[slot]
            record.canvas = Canvas(block, slot)
            arrays = {"image": record.read("image")}
            block.put(slot, arrays, record.canvas)
        np.testing.assert_array_equal(block.full()["image"], np.stack(alone))
    assert not np.array_equal(turned[0].read("image"), kept[0].read("image"))

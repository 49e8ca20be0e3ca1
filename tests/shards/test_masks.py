"""Masks in the containers that people have: each is read as what it means, or refused by name when packed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import RNG, SQUARE, Folder, H, W, chunk, encoded, masks, noise, without
from manifests import tar_of
from PIL import Image

from shards.check.lint import lint
from shards.errors import DataError
from shards.format.codecs import decode
from shards.format.images import Reading, read_image
from shards.format.info import load_info, save_info
from shards.pack.adopt import adopt
from shards.read.dataset import Dataset


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "in")


def layered(colour: tuple[int, int, int] = (255, 255, 255), behind: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """RGBA: `colour` painted fully opaque on a transparent ground."""
    pixels = np.zeros((H, W, 4), np.uint8)
    pixels[..., :3] = behind
    pixels[SQUARE > 0] = (*colour, 255)
    return Image.fromarray(pixels)


def merged(mode: str) -> Image.Image:
    plane, full = Image.fromarray(SQUARE), Image.fromarray(np.full_like(SQUARE, 255))
    return Image.merge(mode, [*[plane] * (len(mode) - 1), full])


def one_palette() -> Image.Image:
    picture = Image.fromarray((SQUARE > 0).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 220, 0])
    return picture


def red() -> np.ndarray:
    return np.dstack([SQUARE, np.zeros_like(SQUARE), np.zeros_like(SQUARE)])


MASKS = {
    "grey": (lambda: Image.fromarray(SQUARE), "0 255"),
    "ones": (lambda: Image.fromarray(SQUARE // 255), "0 1"),
    "black and white": (lambda: Image.fromarray(SQUARE).convert("1"), "0 255"),
    "LA": (lambda: merged("LA"), "0 255"),
    "RGBA": (lambda: merged("RGBA"), "0 255"),
    "RGB": (lambda: Image.fromarray(np.dstack([SQUARE] * 3)), "0 255"),
    "red": (lambda: Image.fromarray(red()), "0 255"),
    "orange": (
        lambda: Image.fromarray(np.where(SQUARE[..., None] > 0, np.uint8([250, 120, 10]), np.uint8(0))),
        "0 250",
    ),
    "palette": (one_palette, "0 1"),
    "painted on a layer": (lambda: layered((0, 200, 0)), "0 200"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_the_object_is_the_same_in_every_container(folder, kind):
    make, values = MASKS[kind]
    data, said = masks(folder, encoded(make()), encoded(make())).pack()
    for i in range(2):
        mask = data[i].read("mask")
        assert mask.shape == data[i].shape("mask") == (H, W, 1)
        np.testing.assert_array_equal(mask[..., 0] > 0, SQUARE > 0)
    assert data.info.fields["mask"].meaning == {"values": values}
    assert f"mask: values {values}" in said
    assert not lint(data.path).problems


def narrow_png(values: np.ndarray, depth: int) -> bytes:
    """A grey PNG of 2 or 4 bits, which Pillow does not write; widths that fill whole bytes."""
    h, w = values.shape
    bits = (values[..., None] >> np.arange(depth)[::-1] & 1).reshape(h, -1)
    rows = np.packbits(bits.astype(np.uint8), axis=1)
    body = b"".join(b"\0" + r.tobytes() for r in rows)
    head = struct.pack(">IIBBBBB", w, h, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [2, 4])
def test_class_numbers_in_few_bits_are_the_numbers_in_the_file(folder, depth):
    values = RNG.integers(0, 1 << depth, (H, W))
    data = narrow_png(values, depth)
    np.testing.assert_array_equal(decode("png", data, indexed=True)[..., 0], values)
    np.testing.assert_array_equal(decode("png", data)[..., 0], values * (255 // ((1 << depth) - 1)))
    made, said = masks(folder, data, data).pack()
    np.testing.assert_array_equal(made[0].read("mask")[..., 0], values)
    assert "greys of 2 or 4 bits" in said
    report = lint(without(made, "values"))
    assert not report.problems
    assert "adapt mask_values of your tasks" in str(report)


def test_opacity_and_colours_of_a_mask_must_say_the_same(folder):
    masks(folder, encoded(layered(behind=(255, 255, 255))), encoded(merged("RGBA")))
    with pytest.raises(
        DataError, match=r"i?m0\.png: its opacity .alpha. and its colours do not say the same.*Fix: save it in one grey"
    ):
        folder.pack()
    half = np.asarray(merged("LA")).copy()
    half[..., 1] = 128
    with pytest.raises(DataError, match="do not say the same"):
        read_image("png", encoded(half), Reading("mask"))
    np.testing.assert_array_equal(read_image("png", encoded(half), Reading("mask", opacity="ignore"))[..., 0], SQUARE)


def test_a_mask_in_several_colours_is_refused_and_one_may_say_that_all_are_the_object(folder):
    two = red()
    two[15:20, 2:9] = (0, 255, 0)
    masks(folder, encoded(two), encoded(two))
    with pytest.raises(DataError, match=r"a mask in 2 colours \(#00ff00, #ff0000\).*--meaning mask\.object=any"):
        folder.pack()
    data, _ = folder.pack("any", meanings={"mask": {"object": "any"}})
    np.testing.assert_array_equal(data[0].read("mask")[..., 0], np.where(two.any(-1), 255, 0))
    assert data.info.fields["mask"].meaning == {"object": "any", "values": "0 255"}


def test_jpeg_masks_want_a_threshold(folder):
    lossy = encoded(SQUARE, "JPEG", quality=60)
    masks(folder, lossy, lossy, ext="jpg")
    with pytest.raises(DataError, match=r"2 of 2 masks are JPEG \(such as s0, s1\).*--meaning mask\.object=12[0-9]"):
        folder.pack()
    data, _ = folder.pack("out2", meanings={"mask": {"object": "128"}})
    np.testing.assert_array_equal(data[0].read("mask")[..., 0], SQUARE)
    with pytest.raises(DataError, match=r"mask\.object is '0'"):
        folder.pack("out3", meanings={"mask": {"object": "0"}})


def test_smoothed_masks_want_a_threshold_and_classes_do_not(folder):
    soft = np.asarray(
        Image.fromarray(np.kron(SQUARE, np.ones((4, 4), np.uint8))).rotate(20, Image.Resampling.BICUBIC).resize((W, H))
    )
    masks(folder, encoded(soft), encoded(soft))
    with pytest.raises(DataError, match=r"soft edges, not classes.*object=128"):
        folder.pack()
    data, _ = folder.pack("hard", meanings={"mask": {"object": "128"}})
    np.testing.assert_array_equal(data[0].read("mask")[..., 0] > 0, soft >= 128)
    organs = RNG.integers(0, 40, (H, W), dtype=np.uint8)
    data, _ = masks(Folder(folder.path / "organs"), encoded(organs), encoded(organs)).pack()
    assert data.info.fields["mask"].meaning == {"values": "0 to 39 (40 values)"}


def test_masks_of_two_makers_are_refused(folder):
    masks(folder, encoded(SQUARE), encoded(SQUARE // 255))
    with pytest.raises(
        DataError, match=r"the object is 1 in some masks \(such as 's1'\) and 255 in others \(such as 's0'\)"
    ):
        folder.pack()
    void = SQUARE // 255
    void = np.where(np.arange(H)[:, None] > 20, 255, void).astype(np.uint8)  # 255: not rated, beside class 1
    data, _ = masks(Folder(folder.path / "void"), encoded(void), encoded(SQUARE // 255)).pack()
    assert data.info.fields["mask"].meaning == {"values": "0 1 255"}


def test_masks_that_are_object_from_edge_to_edge_are_refused(folder):
    full = np.full((H, W), 255, np.uint8)
    masks(folder, encoded(full), encoded(full))
    with pytest.raises(DataError, match="every pixel of all 2 masks is 255"):
        folder.pack()
    _, said = masks(Folder(folder.path / "empty"), encoded(full * 0), encoded(full * 0)).pack()
    assert "none of 2 masks holds any object" in said


def test_shapes_that_counted_opacity_are_no_fault(folder):
    for i in range(2):
        folder.add(encoded(Image.fromarray(noise(i)).convert("RGBA")), encoded(merged("RGBA")))
    data, _ = folder.pack()
    info = load_info(data.path)
    assert info.fields["image"].shape == (H, W, 3)
    assert info.fields["mask"].shape == (H, W, 1)
    fields = {n: f.model_copy(update={"shape": (H, W, 4)} if f.kind == "image" else {}) for n, f in info.fields.items()}
    save_info(data.path, info.model_copy(update={"fields": fields}))
    assert not lint(data.path).problems
    other = {n: f.model_copy(update={"shape": (H, W, 1)} if n == "image" else {}) for n, f in info.fields.items()}
    save_info(data.path, info.model_copy(update={"fields": other}))
    assert len(lint(data.path).problems) == 1


def test_lint_tells_masks_whose_opacity_was_the_object(folder):
    data, _ = masks(folder, encoded(merged("LA")), encoded(merged("RGBA"))).pack()
    report = lint(without(data, "values"))
    assert not report.problems
    assert "2 masks have a channel of opacity, which earlier versions took for the object" in str(report)


def test_adopted_masks_are_looked_at_too(tmp_path):
    lossy = encoded(SQUARE, "JPEG", quality=60)
    tar_of(
        tmp_path / "a.tar",
        [(f"{k}.{n}", d) for k in "ab" for n, d in (("image.png", encoded(noise())), ("mask.jpg", lossy))],
    )
    with pytest.raises(DataError, match="2 of 2 masks are JPEG"):
        adopt(tmp_path, patient_from_key=True)
    assert not (tmp_path / "dataset.json").exists()
    info = adopt(tmp_path, patient_from_key=True, meanings={"mask": {"object": "128"}})
    assert info.fields["mask"].meaning == {"object": "128", "values": "0 255"}
    np.testing.assert_array_equal(Dataset.open(tmp_path)[1].read("mask")[..., 0], SQUARE)
    assert adopt(tmp_path, patient_from_key=True).fields["mask"].meaning == info.fields["mask"].meaning

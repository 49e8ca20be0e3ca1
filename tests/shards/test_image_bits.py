"""How many bits of a picture are used, and what its opacity says: read as it is meant, or refused when packed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from image_files import SQUARE, Folder, H, W, encoded, film, masks, noise, see_through, without
from PIL import Image

from shards.check.lint import lint
from shards.errors import DataError
from shards.format.image_tally import ImageTally
from shards.format.images import Reading, eight_bit, read_image, reading_of
from shards.pack.adopt import adopt
from shards.read.dataset import Dataset


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "in")


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1000, 10), (4095, 12), (4000, 12), (16383, 14), (65535, 16)])
def test_the_bits_of_16_bit_films_are_those_of_all_of_them(folder, top, bits):
    dark = film(max(1, top // 5))
    data, said = folder.add(encoded(dark)).add(encoded(film(top))).add(encoded(film(top, 1))).pack()
    assert data.info.fields["image"].meaning == {"bits": str(bits)}
    assert f"16-bit greys of {bits} bits (the largest value of all is {top:,})" in said
    full = (1 << bits) - 1
    for i, stored in ((0, dark), (1, film(top))):
        pixels = data[i].read("image")
        assert pixels.dtype == np.uint8
        assert pixels.shape == data[i].shape("image") == (H, W, 1)
        np.testing.assert_array_equal(pixels[..., 0], np.floor(stored / full * 255 + 0.5))
    assert data[1].read("image").max() == round(255 * top / full)


def test_stated_bits_are_taken(folder):
    folder.add(encoded(film(900))).add(encoded(film(900, 1)))
    data, said = folder.pack(meanings={"image": {"bits": "12"}})
    assert data[0].read("image").max() == round(255 * 900 / 4095)
    assert "12 bits (as stated)" in said
    with pytest.raises(DataError, match=r"--meaning image\.bits=8: .* of the pixels are above 255"):
        folder.pack("other", meanings={"image": {"bits": "8"}})
    with pytest.raises(DataError, match=r"image\.bits is 'twelve'"):
        folder.pack("third", meanings={"image": {"bits": "twelve"}})


def test_a_marker_that_uses_more_bits_than_the_film_is_told(folder):
    pixels = np.tile(film(4095), (10, 10))
    pixels[3, 3] = 65535
    folder.add(encoded(pixels)).add(encoded(np.tile(film(4095, 1), (10, 10))))
    _, said = folder.pack()
    assert "16 bits leave the most dark" in said
    assert "state --meaning image.bits=12" in said
    data, said = folder.pack("other", meanings={"image": {"bits": "12"}})
    assert "1 pixels above 4,095" in said
    assert data[0].read("image")[3, 3, 0] == 255
    assert len(np.unique(data[0].read("image"))) > 200


def test_few_grey_levels_are_told(folder):
    offset = (32768 + film(500)).astype(np.uint16)  # values around the middle of 16 bits: little is left in 8
    _, said = folder.add(encoded(offset)).add(encoded(offset)).pack()
    assert re.search(r"of \d+ grey levels [23] are left in 8 bits \(values 32,768 to 33,268\)", said)
    _, said = Folder(folder.path / "dark").add(encoded(noise() // 64)).add(encoded(noise(1) // 64)).pack()
    assert "no pixel of 2 images is brighter than 3 of 255" in said
    assert "--meaning image.bits=2" in said


def test_a_data_set_of_16_bits_that_does_not_say_how_many_are_used_is_not_read(folder):
    data, _ = folder.add(encoded(film(4095))).add(encoded(film(4095, 1))).pack()
    before = data[0].read("image")
    path = without(data, "bits")
    with pytest.raises(DataError, match=r"how many of its bits are used.*Fix: run `python -m shards index`"):
        Dataset.open(path)[0].read("image")
    problems = [str(p) for p in lint(path).problems]
    assert len(problems) == 1
    assert "2 images have 16 bits, the largest value is 4,095" in problems[0]
    assert "image.bits=12" in problems[0]
    notes: list[str] = []
    adopt(path, notes=notes)
    assert not lint(path).problems
    np.testing.assert_array_equal(Dataset.open(path)[0].read("image"), before)
    assert "12 bits" in notes[0]


def test_sixteen_bit_masks_are_numbers(folder):
    mask = np.where(SQUARE > 0, 700, 0).astype(np.uint16)
    data, _ = masks(folder, encoded(mask), encoded(mask)).pack()
    assert data[0].read("mask").dtype == np.uint16
    np.testing.assert_array_equal(data[0].read("mask")[..., 0], mask)
    assert data.info.fields["mask"].meaning == {"values": "0 700"}
    assert not lint(data.path).problems


def test_eight_bit_is_even_and_keeps_its_ends():
    for bits in (1, 4, 8, 12, 16):
        top = (1 << bits) - 1
        ramp = np.arange(top + 1, dtype=np.uint16)[None, :, None]
        out = eight_bit(ramp, Reading(bits=bits))[0, :, 0].astype(int)
        assert out[0] == 0
        assert out[-1] == 255
        assert np.abs(out - ramp[0, :, 0] / top * 255).max() <= 0.5


def test_skimming_looks_only_where_it_must():
    tally = ImageTally()
    assert tally.add("a", "image", "jpg", encoded(noise(), "JPEG"), skim=True) is None
    assert tally.add("a", "image", "png", encoded(noise()), skim=True) is None
    assert tally.add("b", "other", "png", encoded(film(4095)), skim=True) is not None
    assert tally.settle().meanings == {"other": {"bits": "12"}}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette", "grey"])
def test_opacity_that_says_nothing_is_left_out(folder, mode):
    made, want = [], []
    for i in range(2):
        colour = Image.fromarray(noise(i))
        picture = {
            "RGBA": lambda c=colour: c.convert("RGBA"),
            "LA": lambda c=colour: c.convert("LA"),
            "palette": lambda c=colour: c.quantize(16),
            "grey": lambda c=colour: c.convert("L"),
        }[mode]()
        made.append(picture)
        want.append(np.asarray(picture.convert("L" if mode in ("LA", "grey") else "RGB")).reshape(H, W, -1))
    data, said = (
        folder.add(encoded(made[0]))
        .add(encoded(made[1], transparency=bytes([255] * 16)) if mode == "palette" else encoded(made[1]))
        .pack()
    )
    for i in range(2):
        assert data[i].shape("image") == want[i].shape
        np.testing.assert_array_equal(data[i].read("image"), want[i])
    assert ("channel of opacity that is full everywhere" in said) == (mode != "grey")
    assert data.info.fields["image"].meaning == {}
    assert not lint(data.path).problems


def test_transparent_pixels_are_refused_until_the_ground_is_said(folder):
    folder.add(encoded(see_through())).add(encoded(noise(1)))
    with pytest.raises(DataError, match=r"7\.8% of its pixels are partly transparent.*--meaning image\.opacity=black"):
        folder.pack()
    for ground, value in (("black", 0), ("white", 255)):
        data, said = folder.pack(ground, meanings={"image": {"opacity": ground}})
        want = np.where(SQUARE[..., None] > 0, np.floor((noise() * 102.0 + value * 153) / 255 + 0.5), noise())
        assert np.abs(data[0].read("image").astype(int) - want).max() <= 0
        assert f"1 images with transparent pixels, opacity: {ground}" in said
    data, _ = folder.pack("ignore", meanings={"image": {"opacity": "ignore"}})
    np.testing.assert_array_equal(data[0].read("image"), noise())
    path = without(data, "opacity")
    assert any("partly transparent" in str(p) for p in lint(path).problems)
    with pytest.raises(DataError, match="partly transparent"):
        Dataset.open(path)[0].read("image")
    with pytest.raises(DataError, match="opacity is 'grey'"):
        reading_of("image", {"opacity": "grey"})


def test_a_transparent_grey_or_palette_entry_counts_as_opacity():
    for data in (
        encoded(noise(channels=1), transparency=5),
        encoded(Image.fromarray(noise()).quantize(8), transparency=bytes([0] + [255] * 7)),
        encoded(noise(), transparency=tuple(noise()[0, 0].tolist())),
    ):
        with pytest.raises(DataError, match="partly transparent"):
            read_image("png", data, Reading())
    with pytest.raises(DataError, match="transparent grey"):
        read_image("png", encoded(film(4095), transparency=5), Reading(bits=12))

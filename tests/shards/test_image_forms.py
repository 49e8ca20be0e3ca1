"""Pictures that are no single whole picture: animations, files that end early, pixels that cannot be there."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import RNG, Folder, H, W, chunk, encoded, film, noise, see_through
from PIL import Image

from shards.errors import DataError
from shards.format.codecs import decode
from shards.format.images import Reading, read_image
from shards.format.png import missing_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "in")


def test_animations_and_cut_files_are_named(folder):
    frames = [Image.fromarray(noise(i)) for i in range(3)]
    folder.add(encoded(frames[0], save_all=True, append_images=frames[1:])).add(encoded(noise())[:-400])
    folder.add(encoded(noise(), "JPEG", quality=95)[:-300], ext="jpg").add(encoded(noise(), interlace=1))
    with pytest.raises(DataError) as caught:
        folder.pack()
    text = str(caught.value)
    assert "i0.png: cannot be decoded as png: an animation of 3 pictures; store one of them" in text
    assert "i1.png: cannot be decoded as png" in text
    assert "i2.jpg: cannot be decoded as jpg" in text
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_whole_png_lacks_nothing_and_one_that_ends_early_is_named(folder, depth, interlace):
    for size in ((24, 32), (5, 4), (1, 1), (9, 3)):
        values = RNG.integers(0, 1 << depth, size).astype(np.uint8)
        picture = (
            Image.fromarray(values * np.uint8(255 // ((1 << depth) - 1))).convert("P")
            if depth < 8
            else Image.fromarray(values)
        )
        for whole in (
            encoded(picture, bits=depth),
            encoded(Image.fromarray(noise())),
            encoded(film(4095)),
            encoded(see_through()),
        ):
            assert missing_bytes(whole) == 0
    raw = b"".join(b"\0" + bytes([200] * W) for _ in range(H))
    head = struct.pack(">IIBBBBB", W, H, 8, 0, 0, 0, interlace)
    lacking = 7 * (W + 1)

    def made(body: bytes) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")

    assert missing_bytes(made(raw[:-lacking])) >= lacking
    folder.add(made(raw[:-lacking])).add(encoded(noise(1)))
    with pytest.raises(
        DataError,
        match=r"i0\.png: cannot be decoded as png: " + ("" if interlace else r"\d+ bytes of its pixels are missing"),
    ):
        folder.pack()


def test_pixels_that_cannot_be_in_so_few_bytes_are_refused_before_decoding():
    data = bytearray(encoded(noise()))
    data[20:24] = struct.pack(">I", 2_000_000)
    with pytest.raises(DataError, match="2000000 x 32 pixels cannot be in"):
        decode("png", bytes(data))
    black = np.zeros((3000, 3000), np.uint8)  # as well compressed as it gets
    assert decode("png", encoded(black, compress_level=9)).shape == (3000, 3000, 1)


def test_16_bit_pictures_with_opacity_are_refused():
    head = struct.pack(">IIBBBBB", 1, 1, 16, 4, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(5))) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="16-bit PNG with opacity"):
        read_image("png", data, Reading(bits=16))


def test_reports_lose_their_byte_order_mark(tmp_path):
    folder = Folder(tmp_path / "in")
    folder.add(encoded(noise())).add(encoded(noise(1)))
    folder.rows = [(*r, t) for r, t in zip(folder.rows, ("field:report", "a.txt", "b.txt"), strict=True)]
    (folder.path / "a.txt").write_text("No nodule.", encoding="utf-8-sig")
    (folder.path / "b.txt").write_text("Nodule.", encoding="utf-8")
    data, _ = folder.pack()
    assert [data[i].read("report") for i in range(2)] == ["No nodule.", "Nodule."]

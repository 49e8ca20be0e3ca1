"""Mutated images: each is read in the form that its header promises, or refused by name; no other error, nothing that takes long."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from shards.errors import DataError
from shards.format.describe import HeaderError, header_of
from shards.format.image_tally import ImageTally
from shards.format.images import Reading, form, read_image

ROUNDS = 1500


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def seeds() -> list[tuple[str, bytes]]:
    pixels = np.random.default_rng(0)
    colour = Image.fromarray(pixels.integers(0, 256, (16, 20, 3), dtype=np.uint8))
    grey, exif = colour.convert("L"), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    deep = Image.fromarray(pixels.integers(0, 4096, (16, 20)).astype(np.uint16))
    pngs = [
        encoded(colour, "PNG", exif=exif),
        encoded(colour.convert("RGBA"), "PNG"),
        encoded(colour.quantize(8), "PNG", transparency=bytes([255] * 8)),
        encoded(deep, "PNG"),
        encoded(grey, "PNG", transparency=3),
        encoded(grey.convert("1"), "PNG"),
        encoded(colour.convert("LA"), "PNG"),
        encoded(colour, "PNG", save_all=True, append_images=[colour]),
    ]
    return [("jpg", encoded(colour, "JPEG", exif=exif)), *(("png", data) for data in pngs)]


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what stands in them, so that what is wrong is looked at."""
    made, at = bytearray(data), 8
    while at + 12 <= len(made):
        end = at + 8 + struct.unpack_from(">I", made, at)[0]
        if end + 4 > len(made):
            break
        made[end : end + 4] = struct.pack(">I", zlib.crc32(made[at + 4 : end]))
        at = end + 4
    return bytes(made)


def mutated(ext: str, data: bytes, draw: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        made[draw.randrange(min(len(made), draw.choice([60, 200, len(made)])))] = draw.randrange(256)
    made = made[: draw.randrange(len(made))] if draw.random() < 0.15 else made
    return with_checksums(made) if ext == "png" and draw.random() < 0.7 else bytes(made)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of broken EXIF blocks
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_mutated_images_are_read_or_refused():
    draw, outcomes, began = random.Random(0), Counter[str](), time.process_time()
    for _ in range(ROUNDS):
        ext, data = draw.choice(SEEDS)
        data = mutated(ext, data, draw)
        for name in ("image", "mask"):
            reading = Reading(name, bits=12, turned=True)
            try:
                pixels = read_image(ext, data, reading)
                assert pixels.shape == form(ext, data, reading)
                assert pixels.dtype == np.uint8 or (name == "mask" and pixels.dtype == np.uint16)
                outcomes["read"] += 1
            except DataError:
                outcomes["refused"] += 1
            tally = ImageTally()
            try:
                header_of(name, ext, data)
                tally.add("a", name, ext, data, skim=draw.random() < 0.3)
                tally.settle()
                outcomes["packed"] += 1
            except HeaderError:
                outcomes["not packed"] += 1
    assert outcomes["read"] > 100
    assert outcomes["refused"] > 1000
    assert outcomes["packed"] > 100
    assert time.process_time() - began < 120


SEEDS = seeds()

"""Images as their owner has them (files, Pillow's images, arrays) -> pixels as a packed data set gives them, uint8 [H, W, 1 or 3].

A file is decoded as packing and reading do it: turned by its EXIF orientation unless the run's own images were not, greys of 16 bits
by the bits that are used. Nothing is guessed from the values of one image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from shards.errors import DataError, bad
from shards.format.codecs import check_whole, decode
from shards.format.images import Reading, eight_bit, opaque, reading_of
from shards.format.orientation import TAG, orientation, upright

Picture: TypeAlias = "str | Path | Image.Image | np.ndarray"
FILES = (".jpg", ".jpeg", ".png")
MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA"}
"""Pillow's modes of 8 bits and less, and what each is read as."""
AS_ARRAY = "give its pixels as an array, uint8 [H, W] or [H, W, 3], or uint16 [H, W] with medpair.encoder(RUN, bits=12)"


def reading_for(name: str, meaning: Mapping[str, str], bits: int | None, opacity: str | None) -> Reading:
    """How images are read for a run whose field `name` means `meaning`; bits and opacity are what the caller says of their own.

    Raises:
        DataError: bits or opacity that mean nothing.
    """
    stated = {**({} if bits is None else {"bits": str(bits)}), **({} if opacity is None else {"opacity": opacity})}
    turned = meaning.get("orientation", "exif")
    return reading_of(name, {**meaning, **stated, "orientation": turned}, "medpair.encoder")


def pixels_of(given: object, reading: Reading, where: str) -> np.ndarray:
    """uint8 [H, W, 1 or 3].

    Raises:
        DataError: no image that can be read, in terms of Python's call.
    """
    if isinstance(given, str | Path):
        pixels = _of_file(Path(given), reading)
    elif isinstance(given, Image.Image):
        pixels = _of_pillow(given, reading, where)
    else:
        pixels = _of_array(given, where)
    return _plain(pixels, reading, where)


def _plain(pixels_HWC: np.ndarray, reading: Reading, where: str) -> np.ndarray:
    """Without opacity, in 8 bits; what is not known of either is asked for as an argument."""
    through = pixels_HWC.shape[2] in (2, 4) and pixels_HWC[..., -1].min() < 255
    if through and reading.opacity is None:
        fix = 'say what lies under them: medpair.encoder(RUN, opacity="black"), or "white", or "ignore" for the colours as stored'
        raise bad("some of its pixels are partly transparent (opacity, or alpha)", where, fix)
    if pixels_HWC.dtype == np.uint16 and reading.bits is None:
        fix = "say how many: medpair.encoder(RUN, bits=12), those of the device that made it"
        raise bad("a 16-bit image, and nothing says how many of its bits are used", where, fix)
    return eight_bit(opaque(pixels_HWC, reading, where), reading, where)


def _of_file(path: Path, reading: Reading) -> np.ndarray:
    ext, where = path.suffix.lower(), str(path)
    if not path.is_file():
        raise bad("no such file", where, "give the path of an image")
    if ext not in FILES:
        raise bad(f"a '{ext}' file is not read as an image (those are {', '.join(FILES)})", where, AS_ARRAY)
    data = path.read_bytes()
    try:
        check_whole(ext[1:], data, where)
        pixels = decode(ext[1:], data, where)
    except DataError as e:
        raise DataError(
            bad(p.what, where, "save the image again from its source").problems[0] for p in e.problems
        ) from e
    return upright(pixels, orientation(ext[1:], data)) if reading.turned else pixels


def _of_pillow(image: Image.Image, reading: Reading, where: str) -> np.ndarray:
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
    elif image.mode in MODES:
        clear = "transparency" in image.info
        mode = ("LA" if image.mode in ("1", "L") else "RGBA") if clear else MODES[image.mode]
        try:
            pixels = np.asarray(image.convert(mode))
        except OSError as e:
            raise bad(f"cannot be decoded ({e})", where, "save the image again from its source") from e
    else:
        raise bad(f"a Pillow image of mode {image.mode}", where, "convert it first: image.convert('RGB')")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    number = image.getexif().get(TAG, 1) if reading.turned else 1
    return upright(pixels, number) if number in range(2, 9) else pixels


def _of_array(given: object, where: str) -> np.ndarray:
    pixels = np.asarray(given)
    if pixels.dtype not in (np.uint8, np.uint16):
        what = f"{type(given).__name__} of {pixels.dtype}" if pixels.ndim else f"a {type(given).__name__}"
        raise bad(f"{what} is no image", where, "give a path, a Pillow image, or an array: uint8, or uint16 with bits=")
    shape = pixels.shape
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or not pixels.size:
        turn = "; its channels come first: array.transpose(1, 2, 0)" if len(shape) == 3 and shape[0] in (1, 3) else ""
        raise bad(f"an array of shape {list(shape)} is no image", where, f"give [H, W] or [H, W, 1, 3 or 4]{turn}")
    if pixels.dtype == np.uint16 and pixels.shape[2] != 1:
        raise bad("16 bits a channel in colour", where, "give 8 bits a channel, or 16-bit grey")
    return np.ascontiguousarray(pixels)

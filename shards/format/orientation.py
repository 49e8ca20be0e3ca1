"""Which way up a photograph is: the EXIF orientation of a JPEG or PNG, and pixels turned by it.

Cameras store what the sensor saw and a number from 1 to 8 that says how to hold it (EXIF 2.32, tag 0x0112; CIPA DC-008). Viewers and
drawing tools turn the picture, so a mask drawn on it lies on the turned one.
"""

from __future__ import annotations

import io
import struct

import numpy as np

from shards.format.jpeg import of_last, pixels_begin

TAG = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # height and width change places
# What an EXIF block begins with, in a JPEG and in the two places of a PNG; a file without any needs no look inside.
_IN_JPEG, _IN_PNG = b"Exif\0", (b"eXIf", b"Raw profile type exif", b"Raw profile type APP1")


@of_last
def _jpeg_marked(data: bytes) -> int:
    return data.find(_IN_JPEG, 0, pixels_begin(data) or len(data)) >= 0


def _png_marked(data: bytes) -> int:
    return any(mark in data for mark in _IN_PNG)


def orientation(ext: str, data: bytes) -> int:
    """1 to 8 as EXIF has it; 1 (as stored) where there is none, or one that is broken."""
    marked = {"jpg": _jpeg_marked, "jpeg": _jpeg_marked, "png": _png_marked}.get(ext)
    if marked is None or not marked(data):
        return 1
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            found = image.getexif().get(TAG, 1)
    except (ValueError, OSError, SyntaxError, TypeError, struct.error, Image.DecompressionBombError):
        return 1  # what cannot be read is refused when it is decoded
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def upright(pixels_HWC: np.ndarray, number: int) -> np.ndarray:
    """The picture as it is to be seen, from pixels as stored and their orientation."""
    if number in SIDEWAYS:
        pixels_HWC = pixels_HWC.swapaxes(0, 1)
    # (upside down, mirrored) after the change of sides
    down, mirrored = {
        1: (False, False),
        2: (False, True),
        3: (True, True),
        4: (True, False),
        5: (False, False),
        6: (False, True),
        7: (True, True),
        8: (True, False),
    }[number]
    pixels_HWC = pixels_HWC[::-1] if down else pixels_HWC
    return np.ascontiguousarray(pixels_HWC[:, ::-1] if mirrored else pixels_HWC)

"""Masks in the containers that sources meet beside PNG and JPEG: TIFF, BMP and whatever else Pillow reads, as their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.errors import DataError, bad
from shards.format.images import Reading, mask_values, read_image

FIX = "bring the slice and its mask again"
# 0 and 255 of black and white, a palette's numbers, greys of 8 and 16 bits, colours.
MODES = ("1", "P", "L", "LA", "I;16", "RGB", "RGBA")


def mask_of(path: Path) -> np.ndarray:
    """The values [H, W] of a mask.

    Raises:
        DataError: cannot be read, holds several pictures, or values that cannot be told.
    """
    from PIL import Image

    reading, suffix = Reading("mask"), path.suffix.lower()
    try:
        if suffix == ".png":
            return read_image("png", path.read_bytes(), reading, path)[..., 0]
        with Image.open(path) as image:
            if image.mode not in MODES or getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"mode {image.mode}, {getattr(image, 'n_frames', 1)} pictures")
            pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise bad(f"cannot be read as a mask ({e})", path, FIX) from e
    return mask_values(pixels if pixels.ndim == 3 else pixels[..., None], reading, path)[..., 0]

"""Pillow's filters on pixels of any dtype, each channel by itself.

Pillow filters 8-bit and 32-bit float pictures; its affine transforms of 16-bit ones work byte by byte, which turns them into noise, and
its filters of four channels take the fourth for opacity. So other dtypes go through float32 (exact for whole numbers up to 2^24) and
come back rounded and within their range.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image


def filtered(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """`change` of a picture [H, W] or [H, W, C], of the same dtype and number of axes."""
    if x.dtype == np.uint8 and (x.ndim == 2 or x.shape[2] == 3):
        return np.asarray(change(Image.fromarray(np.ascontiguousarray(x))))
    if x.ndim == 2:
        return _plane(x, change)
    return np.stack([_plane(x[..., c], change) for c in range(x.shape[2])], axis=-1)


def _plane(x_HW: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    plain = np.ascontiguousarray(x_HW, np.uint8 if x_HW.dtype in (np.uint8, np.bool_) else np.float32)
    out = np.asarray(change(Image.fromarray(plain)))
    if x_HW.dtype.kind in "iu" and out.dtype != x_HW.dtype:
        limits = np.iinfo(x_HW.dtype)
        out = np.clip(np.rint(out), limits.min, limits.max)
    return out.astype(x_HW.dtype, copy=False)

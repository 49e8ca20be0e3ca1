"""Squares to cut out of an image (DeVries and Taylor 2017, arXiv 1708.04552)."""

from __future__ import annotations

import numpy as np


def holes(size: int, count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W], 1 inside `count` squares of `side` pixels whose centres lie anywhere in the image, 0 elsewhere.

    A square that reaches over the border is cut off there; squares may overlap.
    """
    out_HW = np.zeros((size, size), np.uint8)
    for _ in range(count):
        top, left = rng.integers(0, size, 2) - side // 2
        out_HW[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 1
    return out_HW

"""Elastic deformation of an image (Simard et al. 2003): a smoothed random field moves its pixels.

Shape letters: H x W pixels, C channels.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from scipy import ndimage

FIELD = 64  # places of a side of the field: it is smooth over an eighth of the image, so that more would tell nothing


def deform(x_HWC: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """float32 [H, W, C] of values in [0, 1], moved by a field that is smooth over an eighth of the image.

    Args:
        strength: the moves' standard deviation away from the border, as a share of the image's side, in rows and in columns.
    """
    H, W = x_HWC.shape[:2]
    down_HW, right_HW = (_field(H, W, strength * n, rng) for n in (H, W))
    return moved(x_HWC, down_HW, right_HW)


def _field(H: int, W: int, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Moves in pixels of that standard deviation away from the border, [H, W]."""
    rows, columns = min(H, FIELD), min(W, FIELD)
    sigma = min(rows, columns) / 8
    # Uniform noise in -1..1 has a deviation of 1 / sqrt(3), which a Gaussian of this width divides by 2 sqrt(pi) sigma.
    factor = deviation * math.sqrt(3) * 2 * math.sqrt(math.pi) * sigma
    coarse = smoothed(rng.uniform(-1, 1, (rows, columns)), sigma, factor).astype(np.float32)
    if coarse.shape == (H, W):
        return coarse
    return np.asarray(Image.fromarray(coarse).resize((W, H), Image.Resampling.BICUBIC))


def smoothed(noise_HW: np.ndarray, sigma: float, factor: float) -> np.ndarray:
    """Noise in -1..1 under a Gaussian, with zeros beyond the border, times a factor."""
    return ndimage.gaussian_filter(noise_HW, sigma, mode="constant") * factor


def moved(x_HWC: np.ndarray, down_HW: np.ndarray, right_HW: np.ndarray) -> np.ndarray:
    """Of each place what lies so many rows below and columns beside it: linear between pixels, mirrored beyond the border."""
    row_HW, column_HW = np.indices(x_HWC.shape[:2], np.float32)
    places = np.stack([row_HW + down_HW, column_HW + right_HW])
    planes = [
        ndimage.map_coordinates(x_HWC[..., c], places, np.float32, order=1, mode="reflect")
        for c in range(x_HWC.shape[2])
    ]
    return np.stack(planes, -1)

"""Slices of a scan on their way to a model: one affine augmentation in a worker thread, z-scores on the device.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.transforms.pixels import filtered


def resized(image_HWC: np.ndarray, size: int) -> np.ndarray:
    """[H, W, C] -> [size, size, C], each side scaled by itself (bilinear; shrinking filters first)."""
    if image_HWC.shape[:2] == (size, size):
        return image_HWC
    return filtered(image_HWC, lambda p: p.resize((size, size), Image.Resampling.BILINEAR))


def augmented(image_HWC: np.ndarray, rng: np.random.Generator, rotate: float, scale: float, flip: float) -> np.ndarray:
    """Rotation by up to `rotate` degrees, zoom by up to `scale` either way, mirrored with probability `flip`.

    One bilinear transform about the centre; what comes from outside the image is black, as the background of a scan.
    """
    angle, zoom = math.radians(rng.uniform(-rotate, rotate)), 1 + rng.uniform(-scale, scale)
    mirror = -1.0 if rng.random() < flip else 1.0
    if angle or zoom != 1:
        H, W = image_HWC.shape[:2]
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        x, y = W / 2, H / 2
        # Pillow asks where each pixel of the result comes from; its pixel centres lie at halves.
        matrix = (cos * mirror, sin, x - cos * mirror * x - sin * y, -sin * mirror, cos, y + sin * mirror * x - cos * y)
        return filtered(
            image_HWC, lambda p: p.transform((W, H), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        )
    return np.ascontiguousarray(image_HWC[:, ::-1]) if mirror < 0 else image_HWC


def zscored(image_BHWC: Tensor) -> Tensor:
    """uint8 [B, H, W, C] -> float32 [B, C, H, W], every slice and channel with mean 0 and deviation 1 (constant: 0)."""
    x_BCHW = image_BHWC.permute(0, 3, 1, 2).float()
    std, mean = torch.std_mean(x_BCHW, dim=(2, 3), keepdim=True, correction=0)
    return (x_BCHW - mean) / torch.where(std > 0, std, 1.0)

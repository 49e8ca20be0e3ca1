"""Views of an image, drawn in the loader: random resized crop, flip, and the fixed view of an evaluation.

Images go in and come out uint8 [H, W, C]; Pillow resizes (bicubic, with antialiasing).
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from models.contract import MethodError
from models.transforms.pixels import filtered

ASPECT = (3 / 4, 4 / 3)


def grey(image_HWC: np.ndarray) -> np.ndarray:
    """One channel, [H, W, 1]: luma by ITU-R 601 (0.299 R + 0.587 G + 0.114 B), which is what Pillow's "L" means."""
    colour_HWC = image_HWC[..., :3] if image_HWC.shape[-1] == 4 else image_HWC
    if colour_HWC.shape[-1] != 3:
        return colour_HWC[..., :1]
    return np.asarray(Image.fromarray(colour_HWC).convert("L"))[..., None]


def colours(image_HWC: np.ndarray, grayscale: bool) -> np.ndarray:
    """One channel if `grayscale`, else three (of one: repeated; of two or four: without opacity)."""
    if grayscale:
        return grey(image_HWC)
    return image_HWC[..., :3] if image_HWC.shape[-1] >= 3 else np.repeat(image_HWC[..., :1], 3, -1)


def eight_bit(image_HWC: np.ndarray) -> np.ndarray:
    """uint8 [H, W, C]. A data set's images come so (`Record.read`); 16 bits from elsewhere are scaled, 65535 to 255.

    Raises:
        MethodError: numbers without a known range.
    """
    image_HWC = image_HWC if image_HWC.ndim == 3 else image_HWC[..., None]
    if image_HWC.dtype == np.uint16:
        return ((image_HWC.astype(np.uint32) * 510 + 65535) // 131070).astype(np.uint8)
    if image_HWC.dtype != np.uint8:
        raise MethodError([f"an image of {image_HWC.dtype}, whose range is not known; pack it as PNG or JPEG"])
    return image_HWC


def draw_box(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a crop: area uniform in `scale` of the image, aspect log-uniform in 3/4 .. 4/3.

    The rule of Inception training (Szegedy et al. 2015) as torchvision has it: ten tries, then the largest centred box
    of an allowed aspect.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized(image_HWC: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The box of the image at (height, width) `size`, [h, w, C]."""
    left, top, right, bottom = box
    # Cut first: Pillow's own box would let the filter look at pixels outside it.
    part = np.ascontiguousarray(image_HWC[top:bottom, left:right])
    return filtered(part, lambda p: p.resize(size[::-1], Image.Resampling.BICUBIC))


def random_view(
    image_HWC: np.ndarray, size: int, scale: tuple[float, float], flip: float, rng: np.random.Generator
) -> np.ndarray:
    """Random resized crop, mirrored with probability `flip`, [size, size, C]."""
    H, W = image_HWC.shape[:2]
    view = resized(image_HWC, draw_box(H, W, scale, rng), (size, size))
    return np.ascontiguousarray(view[:, ::-1]) if rng.random() < flip else view


def centre_view(image_HWC: np.ndarray, size: int) -> np.ndarray:
    """The shorter side at `size`, then the centre square, [size, size, C]."""
    H, W = image_HWC.shape[:2]
    side = min(H, W)
    left, top = (W - side) // 2, (H - side) // 2
    return resized(image_HWC, (left, top, left + side, top + side), (size, size))

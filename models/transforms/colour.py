"""Random changes of a picture's colours and sharpness, on Pillow pictures of mode "RGB" or "L".

Brightness, contrast, saturation and hue are those of torchvision's `ColorJitter` on Pillow pictures; hue and saturation leave pictures
of one channel alone. All randomness comes from a NumPy generator, so that a loader thread can repeat it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

LEVELS = np.arange(256, dtype=np.float32)
SAME = LEVELS.astype(np.uint8)
MASS = 4.0
"""Deviations beyond which a Gaussian's weights (6e-5 in all) move no pixel of 8 bits."""


def towards(grey: float, factor: float) -> np.ndarray:
    """The table of 256 levels of a picture that is moved away from a `grey` by `factor`, or towards it below 1; fractions are cut off."""
    return np.clip(grey + np.float32(factor) * (LEVELS - grey), 0, 255).astype(np.uint8)


def through(picture: Image.Image, table: np.ndarray) -> Image.Image:
    """Every channel's levels through the table."""
    return picture.point(table.tolist() * len(picture.getbands()))


def brightness(picture: Image.Image, factor: float) -> Image.Image:
    return through(picture, towards(0.0, factor))


def contrast(picture: Image.Image, factor: float) -> Image.Image:
    """About the mean luma of the picture, as a whole number."""
    count_256 = np.asarray(picture.convert("L").histogram(), np.float64)
    mean = float(np.floor(count_256 @ np.arange(256) / count_256.sum() + 0.5))
    return through(picture, towards(mean, factor))


def saturation(picture: Image.Image, factor: float) -> Image.Image:
    """Away from the picture's own luma, or towards it below 1."""
    return picture if picture.mode == "L" else Image.blend(grey(picture), picture, factor)


def hue(picture: Image.Image, turn: float) -> Image.Image:
    """Every hue turned by this share of the circle."""
    if picture.mode == "L":
        return picture
    turned = SAME + np.int32(turn * 255).astype(np.uint8)  # wraps, as the circle does
    return picture.convert("HSV").point([*turned.tolist(), *SAME.tolist(), *SAME.tolist()]).convert("RGB")


def grey(picture: Image.Image) -> Image.Image:
    """Luma (ITU-R 601) in every channel."""
    return picture if picture.mode == "L" else picture.convert("L").convert("RGB")


def jittered(picture: Image.Image, bounds: tuple[float, float, float, float], rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation and hue in random order.

    Args:
        bounds: b, c, s, h: factors are uniform in [max(0, 1 - b), 1 + b] and so on, the turn of hue in [-h, h]; 0 leaves alone.
    """
    changes: tuple[Callable[[Image.Image, float], Image.Image], ...] = (brightness, contrast, saturation, hue)
    # All four are drawn whatever the bounds, so that the next draws do not depend on them.
    for i, u in zip(rng.permutation(4), rng.random(4), strict=True):
        if bound := bounds[i]:
            low, high = (-bound, bound) if i == 3 else (max(0.0, 1 - bound), 1 + bound)
            picture = changes[i](picture, low + (high - low) * u)
    return picture


def window_blur(picture: Image.Image, sigma: float, share: float = 0.1) -> Image.Image:
    """A Gaussian in a window of `share` of the height (SimCLR, appendix A), made odd; edges are mirrored, where the published code pads
    with black."""
    from scipy.ndimage import gaussian_filter

    radius = int(picture.height * share) // 2
    reach = min(radius, int(np.ceil(MASS * sigma)))
    if reach < 1:
        return picture
    x = np.asarray(picture, np.float32)
    out = gaussian_filter(x, sigma, mode="mirror", radius=reach, axes=(0, 1))
    return Image.fromarray(np.rint(out).astype(np.uint8))


def pillow_blur(picture: Image.Image, sigma: float) -> Image.Image:
    """Pillow's Gaussian (three box filters), which MoCo v3, DINO and iBOT take, of radius `sigma`."""
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def solarised(picture: Image.Image) -> Image.Image:
    """Levels from 128 on inverted (BYOL, appendix B)."""
    return ImageOps.solarize(picture)

"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719) with the operations that leave a grey picture's meaning alone, on Pillow pictures.

No colour, no inversion, no posterising: identity, autocontrast, equalising, brightness, sharpness, shear, translation, rotation. Strengths
at magnitude 10 are those of the paper, but for the translation, which is a twentieth of the side. What comes in from outside is black.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from models.transforms.colour import brightness

HIGHEST = 10.0
FACTOR, SHEAR, SHIFT, DEGREES = 0.9, 0.3, 0.05, 30.0  # at the highest magnitude
Operation = Callable[[Image.Image, float], Image.Image]


def _affine(picture: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
    """The picture with (a x + b y + c, d x + e y + f) at (x, y)."""
    return picture.transform(picture.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda p, u: p,
    "autocontrast": lambda p, u: ImageOps.autocontrast(p),
    "equalise": lambda p, u: ImageOps.equalize(p),
    "brightness": lambda p, u: brightness(p, 1 + FACTOR * u),
    "sharpness": lambda p, u: ImageEnhance.Sharpness(p).enhance(1 + FACTOR * u),
    "shear_x": lambda p, u: _affine(p, 1, SHEAR * u, 0, 0, 1, 0),
    "shear_y": lambda p, u: _affine(p, 1, 0, 0, SHEAR * u, 1, 0),
    "translate_x": lambda p, u: _affine(p, 1, 0, SHIFT * u * p.width, 0, 1, 0),
    "translate_y": lambda p, u: _affine(p, 1, 0, 0, 0, 1, SHIFT * u * p.height),
    "rotate": lambda p, u: p.rotate(DEGREES * u, Image.Resampling.BILINEAR),
}
"""By name; the second argument is the strength, from -1 to 1."""


def augmented(picture: Image.Image, count: int, magnitude: float, rng: np.random.Generator) -> Image.Image:
    """`count` operations drawn with replacement, each at `magnitude` (of 10) in either direction."""
    changes = list(OPERATIONS.values())
    for i, sign in zip(rng.integers(len(changes), size=count), rng.choice((-1.0, 1.0), size=count), strict=True):
        picture = changes[i](picture, float(sign) * magnitude / HIGHEST)
    return picture

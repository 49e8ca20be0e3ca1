"""A record as a task may see it: some fields hidden, genes of someone else, the image and its mask turned alike.

Shape letters: H x W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from models.contract import Record
from models.contract.batch import FieldValue
from models.transforms.crops import draw_box
from models.transforms.pixels import filtered


@dataclass(frozen=True)
class Augmentation:
    """Bounds of a random change of an image: degrees, shares, a probability; 0 leaves alone, and so does a crop of 1."""

    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    crop: float = 1.0


class DrawnAugmentation:
    """One drawn change. The same draw cuts and turns an image (bilinear) and its mask (nearest); brightness is for images alone.

    A crop is Inception's (models/transforms/crops.py), scaled to a square of the image's shorter side.
    """

    def __init__(self, change: Augmentation, rng: np.random.Generator):
        self.angle = math.radians(rng.uniform(-change.rotate, change.rotate))
        self.zoom = 1 + rng.uniform(-change.scale, change.scale)
        self.shift = rng.uniform(-change.shift, change.shift, 2)
        self.mirror = -1.0 if rng.random() < change.flip else 1.0
        self.gain = 1 + rng.uniform(-change.brightness, change.brightness)
        # The box is drawn when the size is known, by a generator of its own: alike for an image and its mask.
        self.crop, self.crop_seed = change.crop, rng.integers(2**63) if change.crop < 1 else None

    def image(self, image_HWC: np.ndarray) -> np.ndarray:
        out = self._moved(self._cut(image_HWC, Image.Resampling.BILINEAR), Image.Resampling.BILINEAR)
        if self.gain != 1:
            out = np.clip(out.astype(np.float32) * self.gain, 0, _brightest(image_HWC.dtype)).astype(image_HWC.dtype)
        return out

    def mask(self, mask_HW: np.ndarray) -> np.ndarray:
        return self._moved(self._cut(mask_HW, Image.Resampling.NEAREST), Image.Resampling.NEAREST)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        return (height, width) if self.crop_seed is None else (min(height, width),) * 2

    def _cut(self, x: np.ndarray, how: Image.Resampling) -> np.ndarray:
        if self.crop_seed is None:
            return x
        H, W = x.shape[:2]
        left, top, right, bottom = draw_box(H, W, (self.crop, 1.0), np.random.default_rng(self.crop_seed))
        return scaled(x[top:bottom, left:right], min(H, W), how)

    def _moved(self, x: np.ndarray, how: Image.Resampling) -> np.ndarray:
        H, W = x.shape[:2]
        if not self.angle and self.zoom == 1 and not self.shift.any():
            return np.ascontiguousarray(x[:, ::-1]) if self.mirror < 0 else x
        cos, sin, m = math.cos(self.angle) / self.zoom, math.sin(self.angle) / self.zoom, self.mirror
        cx, cy = W / 2, H / 2
        dx, dy = self.shift[0] * W, self.shift[1] * H
        # Pillow asks where each pixel of the result comes from.
        a, b, d, e = cos * m, sin, -sin * m, cos
        matrix = (a, b, cx - a * (cx + dx) - b * (cy + dy), d, e, cy - d * (cx + dx) - e * (cy + dy))
        return filtered(x, lambda p: p.transform((W, H), Image.Transform.AFFINE, matrix, how))


def _brightest(dtype: np.dtype) -> float:
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


class RecordView:
    """A record with only `fields`; see the module's head.

    Args:
        fields: fields that may be read; of others `has` says no.
        turned: how the image is changed, if at all.
        side: pixels to which image and mask are scaled, each side by itself (None: as stored).
        pad: fill the shorter side up to a square before that (`squared`).
        genes: where every field but `own` comes from (another patient's record), or None for this one.
        own: the fields of the image side, which stay with their patient (`Method.modalities`).
        images: those of them that are pictures, which are turned and scaled.
    """

    def __init__(
        self,
        record: Record,
        fields: tuple[str, ...],
        turned: DrawnAugmentation | None = None,
        side: int | None = None,
        genes: Record | None = None,
        pad: bool = False,
        own: tuple[str, ...] = ("image", "patches", "coords"),
        images: tuple[str, ...] = ("image",),
    ):
        self._own, self._images = own, images
        self._record, self._fields, self._turned, self._side, self._genes = record, fields, turned, side, genes
        self._pad = pad

    @property
    def key(self) -> str:
        return self._record.key

    @property
    def patient(self) -> str:
        return self._record.patient

    @property
    def labels(self) -> Mapping[str, str | float | None]:
        # What a task is to answer is not among what it may look at.
        return {}

    def _source(self, name: str) -> Record:
        return self._record if self._genes is None or name in self._own else self._genes

    def has(self, name: str) -> bool:
        return name in self._fields and self._source(name).has(name)

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self._source(name).shape(name)
        if name not in self._images:
            return shape
        H, W = shape[:2] if self._turned is None else self._turned.shape(*shape[:2])
        H, W = (max(H, W),) * 2 if self._pad else (H, W)
        return (self._side or H, self._side or W, *shape[2:])

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self._source(name).rows(name, start, stop)

    def read(self, name: str) -> FieldValue:
        value = self._source(name).read(name)
        if name not in self._images:
            return value
        image = value if self._turned is None else self._turned.image(value)
        image = squared(image) if self._pad else image
        return image if self._side is None else scaled(image, self._side, Image.Resampling.BILINEAR)

    def mask(self, name: str, values: tuple[int, ...] = ()) -> np.ndarray:
        """A mask field as 0 and 1, uint8 [H, W], moved as the image is; `values` as in `shaped_mask`."""
        return shaped_mask(self._record.read(name), self._turned, self._side, values, self._pad)


def shaped_mask(
    mask: np.ndarray,
    turned: DrawnAugmentation | None = None,
    side: int | None = None,
    values: tuple[int, ...] = (),
    pad: bool = False,
) -> np.ndarray:
    """The object as 1, uint8 [H, W]: pixels above 0, or those of `values`; turned, filled up if `pad`, and scaled (nearest)."""
    mask_HW = mask if mask.ndim == 2 else one_channel(mask)
    out = (np.isin(mask_HW, values) if values else mask_HW > 0).astype(np.uint8)
    out = out if turned is None else turned.mask(out)
    out = squared(out) if pad else out
    return out if side is None else scaled(out, side, Image.Resampling.NEAREST)


def one_channel(mask_HWC: np.ndarray) -> np.ndarray:
    """The values [H, W] of a mask; of one with opacity (two or four channels) those of its colours."""
    return (mask_HWC[..., :-1] if mask_HWC.shape[2] in (2, 4) else mask_HWC).max(-1)


def squared(x: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, C] -> a square of the longer side, 0 to the right or below: nothing is stretched or cut."""
    H, W = x.shape[:2]
    S = max(H, W)
    return x if H == W else np.pad(x, ((0, S - H), (0, S - W), *((0, 0),) * (x.ndim - 2)))


def scaled(x: np.ndarray, side: int, how: Image.Resampling) -> np.ndarray:
    """[H, W] or [H, W, C] -> [side, side(, C)], each side by itself."""
    return x if x.shape[:2] == (side, side) else filtered(x, lambda p: p.resize((side, side), how))

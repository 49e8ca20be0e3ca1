"""Views of an image, drawn in the loader: random resized crop, flip, and the fixed view of an evaluation.

    picture = picture_of(record, "image", grayscale=True)
    view_HWC = random_view(picture, 448, (0.2, 1.0), flip=0.5, rng=rng)

An image is decoded when its crop is drawn, and then no finer than the view needs; the crop is drawn in pixels of the whole image,
however that is decoded. Where all of it is decoded, a view of a grey image is to the last bit that of three equal channels: filters
work on each channel by itself, and the luma of equal channels is their value.

Images go in as pictures or uint8 [H, W, C], views come out as uint8 [H, W, C]; Pillow resizes (bicubic, with antialiasing).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image

from models.contract import MethodError, Record
from models.contract.stored_image import StoredImage, StoresImages
from models.transforms.pixels import filtered
from models.transforms.resampling import own

Box = tuple[int, int, int, int]

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


def draw_box(height: int, width: int, scale: tuple[float, float], rng: np.random.Generator) -> Box:
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


class Picture:
    """An image of 8 bits, stored or as an array [H, W, C], of which views are cut.

    Args:
        channels: of the views: 1 (luma), 3, or None for those of the image.
    """

    def __init__(self, image: StoredImage | np.ndarray, channels: Literal[1, 3] | None = None):
        self._stored, self._channels = (None if isinstance(image, np.ndarray) else image), channels
        self._divisor, self._at = 1, (0, 0)
        self._part_HWC = self._narrowed(image) if isinstance(image, np.ndarray) else None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the whole image."""
        if self._stored is not None:
            return self._stored.size
        assert self._part_HWC is not None
        H, W, _ = self._part_HWC.shape
        return H, W

    def decoded(self, shrink: float) -> tuple[np.ndarray, int]:
        """Pixels [h, w, C] for views that shrink the whole image by at least `shrink`, and by what its sides are divided."""
        H, W = self.size
        self._decode(shrink, (0, 0, W, H))
        assert self._part_HWC is not None
        return self._part_HWC, self._divisor

    def _decode(self, shrink: float, box: Box) -> None:
        """Makes `_part_HWC`, from `_at` on in an image whose sides are divided by `_divisor`, cover a box of the whole image."""
        if self._stored is None:
            return
        divisor, part_HWC = self._stored.divisor(shrink), self._part_HWC
        if part_HWC is not None:
            # What was decoded more finely, for a view that needed it, serves as well.
            divisor = min(divisor, self._divisor)
            if divisor == self._divisor and self._covers(box):
                return
        pixels_HWC, *at = self._stored.part(divisor, box)
        self._divisor, self._at, self._part_HWC = divisor, (at[0], at[1]), self._narrowed(pixels_HWC)

    def _covers(self, box: Box) -> bool:
        assert self._part_HWC is not None
        (y, x), d, (h, w, _) = self._at, self._divisor, self._part_HWC.shape
        left, top, right, bottom = box
        return x <= left // d and y <= top // d and -(-right // d) <= x + w and -(-bottom // d) <= y + h

    def view(self, box: Box, size: tuple[int, int], how: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
        """A box (left, top, right, bottom) of the whole image at (height, width) `size`, [h, w, C]."""
        left, top, right, bottom = box
        self._decode(min((bottom - top) / size[0], (right - left) / size[1]), box)
        assert self._part_HWC is not None
        d, (first, column) = self._divisor, self._at
        # Cut first: Pillow's own box would let the filter look at pixels outside it.
        x, y = left // d, top // d
        rows, columns = slice(y - first, -(-bottom // d) - first), slice(x - column, -(-right // d) - column)
        part_HWC = np.ascontiguousarray(self._part_HWC[rows, columns])
        inner = None if d == 1 else (left / d - x, top / d - y, right / d - x, bottom / d - y)
        view_HWC = own.resampled(part_HWC, size, inner) if how == Image.Resampling.BICUBIC else None
        if view_HWC is None:
            view_HWC = filtered(part_HWC, lambda p: p.resize(size[::-1], how, inner))
        return np.repeat(view_HWC, 3, -1) if self._channels == 3 and view_HWC.shape[-1] == 1 else view_HWC

    def _narrowed(self, image_HWC: np.ndarray) -> np.ndarray:
        """One channel where the views have one; for views of three, three, or the one that will be repeated."""
        if self._channels is None or (self._channels == 3 and image_HWC.shape[-1] < 3):
            return image_HWC if self._channels is None else image_HWC[..., :1]
        return colours(image_HWC, grayscale=self._channels == 1)


def picture_of(record: Record, name: str, grayscale: bool) -> Picture:
    """A record's image, for views of one channel or of three."""
    image = record.stored_image(name) if isinstance(record, StoresImages) else eight_bit(record.read(name))
    return Picture(image, 1 if grayscale else 3)


def as_picture(image: Picture | np.ndarray) -> Picture:
    return image if isinstance(image, Picture) else Picture(image)


def resized(image: Picture | np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """The box of the image at (height, width) `size`, [h, w, C]."""
    return as_picture(image).view(box, size)


def random_view(
    image: Picture | np.ndarray, size: int, scale: tuple[float, float], flip: float, rng: np.random.Generator
) -> np.ndarray:
    """Random resized crop, mirrored with probability `flip`, [size, size, C]."""
    picture = as_picture(image)
    view = picture.view(draw_box(*picture.size, scale, rng), (size, size))
    return np.ascontiguousarray(view[:, ::-1]) if rng.random() < flip else view


def centre_view(image: Picture | np.ndarray, size: int) -> np.ndarray:
    """The shorter side at `size`, then the centre square, [size, size, C]."""
    picture = as_picture(image)
    H, W = picture.size
    side = min(H, W)
    left, top = (W - side) // 2, (H - side) // 2
    return picture.view((left, top, left + side, top + side), (size, size))

"""Images as they go into shards: as they are, or smaller and in another coding (`--image-side`, `--image-format`).

A larger image gets the shorter side that is asked for. A JPEG is decoded at the least of libjpeg's scales (1/8 to 8/8, in the transform)
that is not below that size, and brought to it by Pillow's bicubic filter, which averages over what it leaves out. JPEG is written at
quality 95 without subsampling of colours, grey with one channel; PNG without loss. 16-bit greys stay 16-bit PNGs whose values mean what
they meant: none lies outside of those of the file. Turned photographs are written upright, transparent ones on their ground.
Masks follow their image, each pixel one of the file's (nearest), and boxes follow it in fractions of a pixel. An image that is not
larger, and is in the format asked for, is kept byte for byte.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import simplejpeg

from shards.errors import DataError
from shards.format.codecs import decode_jpeg_small
from shards.format.describe import HeaderError
from shards.format.image_tally import FLAG, ImageTally
from shards.format.images import Reading, form, is_mask, mask_values, opaque, reading_of, upright_pixels
from shards.format.info import KINDS
from shards.format.orientation import SIDEWAYS, orientation, upright

KEEP, FORMATS = "keep", {"keep": "", "jpeg": "jpg", "png": "png"}
QUALITY, SUBSAMPLING = 95, "444"
BOX = "box"
"""The key of a field's meaning that says that it holds boxes, and in which form."""
Size = tuple[int, int]
Scale = tuple[float, float]


@dataclass(frozen=True)
class PictureOptions:
    """side: of an image's shorter side, the most pixels (None: any). format: keep, jpeg or png."""

    side: int | None = None
    format: str = KEEP

    @property
    def untouched(self) -> bool:
        return self.side is None and self.format == KEEP

    def meaning(self, name: str) -> dict[str, str]:
        """What is said in dataset.json of an image field."""
        if self.untouched:
            return {}
        size = f"shorter side at most {self.side}" if self.side else "size as it was"
        if is_mask(name):
            return {"scaled": f"{size}, nearest, with the image"} if self.side else {}
        jpeg = f"JPEG quality {QUALITY} {':'.join(SUBSAMPLING)}"
        coding = {KEEP: f"{jpeg} or PNG as it was", "jpeg": jpeg, "png": "PNG"}[self.format]
        return {"scaled": f"{size}, bicubic, {coding}" if self.side else f"{size}, {coding}"}

    def size(self, height: int, width: int) -> Size:
        """The size that an image becomes."""
        if self.side is None or min(height, width) <= self.side:
            return height, width
        factor = self.side / min(height, width)
        return round(height * factor), round(width * factor)


class Pictures:
    """The images, masks and boxes of one sample; a mask or boxes of a sample without `image` go by themselves."""

    def __init__(self, options: PictureOptions, images: ImageTally):
        self.options, self.images = options, images
        self._size: Size | None = None
        self._new: Size | None = None

    def begin(self, image: tuple[str, bytes] | None) -> None:
        """Another sample, with its field `image` (extension and bytes), which masks and boxes lie on.

        Raises:
            HeaderError: it is no image.
        """
        self._size = self._new = None
        if image is not None and not self.options.untouched:
            try:
                self._size = form(*image, self._reading("image"))[:2]
            except DataError as e:
                raise HeaderError(e.problems[0].what) from e
            self._new = self.options.size(*self._size)

    def stored(self, key: str, name: str, ext: str, data: bytes) -> tuple[str, bytes]:
        """(extension, bytes) of what a shard gets of a file, which is looked at for the tally.

        Raises:
            HeaderError: what is wrong with the file.
        """
        if self.options.untouched:
            self.images.add(key, name, ext, data)
            return ext, data
        try:
            return self._mask(key, name, ext, data) if is_mask(name) else self._image(key, name, ext, data)
        except DataError as e:
            raise HeaderError(e.problems[0].what) from e

    @property
    def scale(self) -> Scale:
        """By how much the sample's image became smaller: (down, across)."""
        if self._size is None or self._new is None:
            return 1.0, 1.0
        return self._new[0] / self._size[0], self._new[1] / self._size[1]

    def _reading(self, name: str) -> Reading:
        stated = self.images.stated.get(name, {})
        turned = {"orientation": "exif" if self.images.turned(name) else "stored"}
        return reading_of(name, {**stated, **turned}, FLAG)

    def _image(self, key: str, name: str, ext: str, data: bytes) -> tuple[str, bytes]:
        reading = self._reading(name)
        size = form(ext, data, reading)[:2]
        new, wanted = self.options.size(*size), FORMATS[self.options.format] or ext.replace("jpeg", "jpg")
        if new == size and wanted == ext.replace("jpeg", "jpg"):
            self.images.add(key, name, ext, data)
            return ext, data
        pixels = self._pixels(key, name, ext, data, reading, new)
        if pixels.dtype == np.uint16:
            wanted = "png"
        small = _smaller(pixels, new)
        return wanted, jpeg_bytes(small) if wanted == "jpg" else png_bytes(small)

    def _pixels(self, key: str, name: str, ext: str, data: bytes, reading: Reading, new: Size) -> np.ndarray:
        """uint8 or uint16 [H, W, 1 or 3], of at least the new size, upright."""
        if KINDS[ext] == "image" and ext != "png" and reading.bits is None:
            self.images.add(key, name, ext, data, skim=True)
            number = orientation(ext, data) if reading.turned else 1
            low = new[::-1] if number in SIDEWAYS else new
            pixels = upright(decode_jpeg_small(data, *low), number)
            self.images.saw(name, pixels)
            return pixels
        self.images.add(key, name, ext, data)
        return opaque(upright_pixels(ext, data, reading), reading)

    def _mask(self, key: str, name: str, ext: str, data: bytes) -> tuple[str, bytes]:
        reading = self._reading(name)
        size = form(ext, data, reading)[:2]
        new = self._new if self._new is not None and self._size == size else self.options.size(*size)
        if new == size or (ext != "png" and reading.least is None):
            self.images.add(key, name, ext, data)
            return ext, data
        ImageTally(self.images.stated, self.images.keep).add(key, name, ext, data)  # whole, and a mask
        plane = mask_values(upright_pixels(ext, data, reading), reading)[..., 0]
        rows, columns = (((np.arange(n) + 0.5) * o / n).astype(int) for n, o in zip(new, size, strict=True))
        small = png_bytes(plane[rows][:, columns][..., None], _palette(ext, data))
        self.images.add(key, name, "png", small)
        return "png", small


def scaled_boxes(boxes_N4: np.ndarray, scale: Scale) -> np.ndarray:
    """float32 [N, 4]: places and sides, or two corners; across comes first in both."""
    down, across = scale
    return (boxes_N4 * np.array([across, down, across, down])).astype(np.float32)


def holds_boxes(name: str, meanings: Mapping[str, Mapping[str, str]]) -> bool:
    return BOX in meanings.get(name, {})


def _smaller(pixels_HWC: np.ndarray, new: Size) -> np.ndarray:
    from PIL import Image

    if pixels_HWC.shape[:2] == new:
        return pixels_HWC
    planes = [pixels_HWC[..., c] for c in range(pixels_HWC.shape[2])]
    if pixels_HWC.dtype == np.uint16:
        planes = [p.astype(np.float32) for p in planes]
    picture = Image.fromarray(planes[0] if len(planes) == 1 else pixels_HWC)
    small = np.asarray(picture.resize(new[::-1], Image.Resampling.BICUBIC)).reshape(*new, -1)
    if pixels_HWC.dtype != np.uint16:
        return small
    # The filter swings over at edges: a value that no pixel had would change how many bits are in use.
    return np.clip(np.rint(small), pixels_HWC.min(), pixels_HWC.max()).astype(np.uint16)


def jpeg_bytes(pixels_HWC: np.ndarray) -> bytes:
    grey = pixels_HWC.shape[2] == 1
    kinds = ("GRAY", "Gray") if grey else ("RGB", SUBSAMPLING)
    whole = np.ascontiguousarray(pixels_HWC)
    return simplejpeg.encode_jpeg(whole, quality=QUALITY, colorspace=kinds[0], colorsubsampling=kinds[1])


def png_bytes(pixels_HWC: np.ndarray, palette: list[int] | None = None) -> bytes:
    from PIL import Image

    whole = np.ascontiguousarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)
    picture, buffer = Image.fromarray(whole), io.BytesIO()
    if palette:
        picture.putpalette(palette)
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _palette(ext: str, data: bytes) -> list[int] | None:
    """The colours of a PNG's numbers: classes stay classes."""
    from PIL import Image

    if ext != "png":
        return None
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        return picture.getpalette() if picture.mode == "P" else None

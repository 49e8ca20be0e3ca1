"""Bytes of a member -> its value, by an allow-list: JPEG, PNG, NPY of numbers, UTF-8 text, JSON. Nothing here runs what it reads.

Images come as the file has them, uint8 [H, W, C]: JPEG always RGB (a grey one has three equal channels); PNG grey [H, W, 1],
grey + opacity [H, W, 2], RGB [H, W, 3], RGBA [H, W, 4] (also where a colour or palette entry is marked transparent), black/white as
0/255 [H, W, 1], 16-bit grey as uint16 [H, W, 1], greys of 2 and 4 bits on 0 to 255, palette as RGB. `indexed` is for masks, which
hold numbers: a palette's indices and greys of 2 and 4 bits come as the numbers in the file, [H, W, 1].
What these pixels mean is for shards/format/images.py to say, through which everybody reads images.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable

import numpy as np
import simplejpeg

from shards.errors import DataError, bad
from shards.format.info import KINDS, MAX_PIXELS
from shards.format.jpeg import of_last
from shards.format.jpeg_codes import is_quick, surely_whole
from shards.format.jpeg_own import own
from shards.format.npy import NpyError, read_array
from shards.format.png import MAX_RATIO, missing_bytes, raw_bytes
from shards.tables.instead import LOOKED_AT, instead_of
from shards.untyped import Decoded, Json

Room = Callable[[tuple[int, ...]], np.ndarray | None]
"""Gives an array for a shape, if it has one."""
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Channels of a PNG by IHDR colour type: grey, RGB, palette, grey + alpha, RGBA.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_PNG_MODES = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "1": "L", "P": "RGB"}
_MEND = "store the member again from its source and pack (`python -m shards lint` lists every such member)"


def decode(ext: str, data: bytes | memoryview, where: object = "member", *, indexed: bool = False) -> Decoded:
    """The decoded member: images uint8 [H, W, C], arrays as stored, text str, JSON plain values.

    `indexed` keeps the numbers of a mask. `where` names the member in errors.

    Raises:
        DataError: an extension outside the allow-list, too many pixels, or bytes that are not what the extension says.
    """
    if ext not in KINDS:
        raise bad(f"members of kind '.{ext}' are never decoded", where, f"use one of {', '.join(sorted(KINDS))}")
    try:
        return _png(bytes(data), indexed) if ext == "png" else _DECODERS[ext](data)
    except (ValueError, OSError, RecursionError, MemoryError, SyntaxError) as e:
        raise _refused(f"cannot be decoded as {ext}: {e or type(e).__name__}", data, where) from e


def _refused(what: str, data: bytes | memoryview, where: object) -> DataError:
    """The error of bytes that are not what they should be; what they are instead, where that can be told."""
    # What begins as JSON is no stranger in place of JSON.
    if not what.startswith("cannot be decoded as json") and (found := instead_of(bytes(data[:LOOKED_AT]))):
        what = f"{what.partition(':')[0]}: it {found[0]}"
    # Pillow names the object that it reads, by its place in memory.
    return bad(re.sub(r" ?<[\w.]+ object at 0x[0-9a-f]+>", "", what), where, _MEND)


def decode_jpeg(data: bytes, where: object, canvas: Room | None = None) -> np.ndarray:
    """`decode` of a JPEG, into the uint8 [H, W, 3] array that `canvas` gives for the shape, or else a new one."""
    try:
        shape = (*_jpeg_size(data), 3)
        home = None if canvas is None else canvas(shape)
        if home is None or not home.flags.c_contiguous:
            return simplejpeg.decode_jpeg(data, "RGB")
        simplejpeg.decode_jpeg(data, "RGB", buffer=home)
        return home
    except ValueError as e:
        raise _refused(f"cannot be decoded as jpg: {e}", data, where) from e


def decode_jpeg_as(data: bytes, home: np.ndarray) -> np.ndarray | None:
    """`home` [H, W, 3] with the image in it; None (and `home` spoilt) when it is no such image.

    The decoder writes into `home` alone, so no size needs checking first: that would parse the header once more.
    """
    try:
        image = simplejpeg.decode_jpeg(data, "RGB", buffer=home)
    except ValueError:
        return None
    return home if image.shape == home.shape else None


class Jpeg:
    """A JPEG whose header is read, and whose pixels are not decoded yet.

    Raises:
        DataError: no such file, or more than `format.MAX_PIXELS` pixels.
    """

    def __init__(self, data: bytes, where: object = "member"):
        self._data, self._where = data, where
        try:
            self.height, self.width, colours = _jpeg_header(data)
        except ValueError as e:
            raise _refused(f"cannot be decoded as jpg: {e}", data, where) from e
        self._space = "GRAY" if colours == "Gray" else "RGB"

    @property
    def channels(self) -> int:
        """Of its pixels, 1 or 3."""
        return 1 if self._space == "GRAY" else 3

    def decode(self, divisor: int = 1, canvas: Room | None = None) -> np.ndarray:
        """uint8 [ceil(H / divisor), ceil(W / divisor), 1 of a grey file, else 3], divisor 1, 2, 4 or 8.

        Args:
            canvas: gives an array for a shape, into which it is decoded where that is possible.

        Raises:
            DataError: cannot be decoded.
        """
        home = None if canvas is None else canvas((*self._size(divisor), self.channels))
        if home is not None and not home.flags.c_contiguous:
            home = None
        return np.ascontiguousarray(self._decoded(divisor, None, home)[0])

    def part(self, divisor: int = 1, box: tuple[int, int, int, int] | None = None) -> tuple[np.ndarray, int, int]:
        """At least a box (left, top, right, bottom; pixels of the whole image) of what `decode` gives, and where that part begins.

        Returns:
            uint8 [h, w, 1 or 3], and the row and the column of its first pixel in the image whose sides are divided.

        Raises:
            DataError: cannot be decoded, be it within the box or outside it.
        """
        return self._decoded(divisor, box, None)

    def _decoded(
        self, divisor: int, box: tuple[int, int, int, int] | None, home: np.ndarray | None
    ) -> tuple[np.ndarray, int, int]:
        found = own.decode(self._data, divisor, box, home) if self.channels == 1 else None
        return (self._library(divisor, home), 0, 0) if found is None else found

    def _size(self, divisor: int) -> tuple[int, int]:
        return -(-self.height // divisor), -(-self.width // divisor)

    def _library(self, divisor: int, home: np.ndarray | None) -> np.ndarray:
        height, width = self._size(divisor)
        try:
            image = simplejpeg.decode_jpeg(
                self._data, self._space, min_height=height, min_width=width, min_factor=divisor, buffer=home
            )
        except ValueError as e:
            raise _refused(f"cannot be decoded as jpg: {e}", self._data, self._where) from e
        assert image.shape[:2] == (height, width), f"divided by {divisor}, the decoder made {image.shape}"
        return image if home is None else home


def eighth(data: bytes, where: object = "member") -> np.ndarray:
    """uint8 [ceil(H/8), ceil(W/8), 1]: a JPEG's mean brightness, block by block; of rare kinds of JPEG what `decode` gives.

    Every coded coefficient is read, so what `decode` refuses is refused; the transforms and colours, which cannot fail, are spared.

    Raises:
        DataError: as `decode` does.
    """
    try:
        kind = _jpeg_header(data)[2]
        if kind == "Gray" and (found := own.decode(data, 8, None)) is not None:  # the same pixels, sooner
            return found[0]
        plain = kind in ("YCbCr", "Gray")
        small = {"min_height": 1, "min_width": 1} if plain else {}
        return simplejpeg.decode_jpeg(data, "GRAY" if plain else "RGB", **small)
    except ValueError as e:
        raise _refused(f"cannot be decoded as jpg: {e}", data, where) from e


def check_jpeg(data: bytes, where: object = "member") -> None:
    """Refuses what `eighth` refuses, in a quarter of its time where the codes of the file alone tell that nothing is wrong.

    Raises:
        DataError: as `decode` does.
    """
    try:
        plain = _jpeg_header(data)[2] in ("YCbCr", "Gray")
    except ValueError as e:
        raise _refused(f"cannot be decoded as jpg: {e}", data, where) from e
    if not (plain and is_quick() and surely_whole(data)):
        eighth(data, where)


def decode_jpeg_small(data: bytes, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 1 or 3] of a JPEG at the least of the decoder's scales that is at least `height` x `width`; grey is one channel.

    Raises:
        DataError: as `decode` does.
    """
    try:
        kind = "GRAY" if _jpeg_header(data)[2] == "Gray" else "RGB"
        return simplejpeg.decode_jpeg(data, kind, min_height=height, min_width=width)
    except ValueError as e:
        raise _refused(f"cannot be decoded as jpg: {e}", data, "member") from e


def image_shape(ext: str, data: bytes, where: object = "member", *, indexed: bool = False) -> tuple[int, int, int]:
    """[H, W, C] that `decode` would give, from the header.

    Raises:
        DataError: not an image, or more than `format.MAX_PIXELS` pixels.
    """
    try:
        if ext == "png":
            height, width, _, colour = _png_header(data)
            return height, width, 1 if indexed and colour == 3 else _PNG_CHANNELS[colour]
        height, width = _jpeg_size(data)
        return height, width, 3
    except ValueError as e:
        raise _refused(f"cannot be read as {ext}: {e}", data, where) from e


def _pixels_allowed(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(f"{height} x {width} pixels, more than the {MAX_PIXELS} allowed (a decompression bomb?)")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    height, width, _ = _jpeg_header(data)
    return height, width


@of_last
def _jpeg_header(data: bytes) -> tuple[int, int, str]:
    """(height, width, colours as the file has them)"""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except KeyError as e:  # a number that simplejpeg has no name for
        raise ValueError(f"a kind of colours or of their sampling that is not known ({e})") from e
    _pixels_allowed(height, width)
    return height, width, colours


def _jpeg(data: bytes | memoryview) -> np.ndarray:
    whole = bytes(data)
    _jpeg_size(whole)
    return simplejpeg.decode_jpeg(whole, "RGB")


def _png_header(data: bytes) -> tuple[int, int, int, int]:
    """(height, width, bit depth, colour type) of the IHDR chunk, which must come first."""
    if data[:8] != _PNG_MAGIC or data[12:16] != b"IHDR" or len(data) < 26:
        raise ValueError("no PNG header")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    _pixels_allowed(height, width)
    if colour not in _PNG_CHANNELS:
        raise ValueError(f"PNG colour type {colour}")
    if raw_bytes(width, height, depth, colour) > MAX_RATIO * len(data):
        raise ValueError(f"{height} x {width} pixels cannot be in {len(data)} bytes: cut off, or a decompression bomb")
    if depth == 16 and colour != 0:
        what = "16-bit colour PNG" if colour in (2, 6) else "16-bit PNG with opacity"
        raise ValueError(
            f"{what}, whose low bytes would be lost; store 8 bits a channel, or 16-bit grey without opacity"
        )
    return height, width, depth, colour


def png_form(data: bytes) -> tuple[int, int]:
    """(bit depth, colour type) of a PNG, from its header.

    Raises:
        DataError: no such header.
    """
    try:
        return _png_header(data)[2:]
    except ValueError as e:
        raise _refused(f"cannot be read as png: {e}", data, "member") from e


def check_whole(ext: str, data: bytes, where: object = "member") -> None:
    """Refuses a PNG whose pixels end early: decoders fill up with black and say nothing (those of JPEG do say so).

    Raises:
        DataError: such a file.
    """
    if ext == "png" and (lacking := missing_bytes(data)):
        raise bad(f"cannot be decoded as png: {lacking} bytes of its pixels are missing", where, _MEND)


def _png(data: bytes, indexed: bool) -> np.ndarray:
    from PIL import Image

    _, _, depth, _ = _png_header(data)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"an animation of {frames} pictures; store one of them")
        seen_through = "transparency" in image.info and not indexed
        if depth == 16:
            if seen_through:
                raise ValueError("16-bit PNG with a transparent grey; store it without transparency")
            return np.asarray(image).astype(np.uint16)[..., None]
        if image.mode not in _PNG_MODES:
            raise ValueError(f"PNG of mode {image.mode}")
        if indexed and image.mode == "P":
            pixels = np.array(image)
        elif seen_through:
            pixels = np.array(image.convert("LA" if image.mode in ("1", "L") else "RGBA"))
        else:
            pixels = np.array(image.convert(_PNG_MODES[image.mode]))
            # Pillow spreads greys of few bits over 0 to 255 (by 85 and 17), exactly.
            pixels = (
                pixels // (255 // ((1 << depth) - 1)) if indexed and image.mode == "L" and depth in (2, 4) else pixels
            )
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _text(data: bytes | memoryview) -> str:
    # Without the byte-order mark that some editors put in front: it is no part of the text.
    return bytes(data).decode("utf-8-sig", "strict")


def _json(data: bytes | memoryview) -> Json:
    return json.loads(_text(data))


_DECODERS: dict[str, Callable[[bytes | memoryview], Decoded]] = {
    "jpg": _jpeg,
    "jpeg": _jpeg,
    "npy": read_array,
    "txt": _text,
    "json": _json,
}
assert issubclass(NpyError, ValueError)
assert {*_DECODERS, "png"} == set(KINDS)

"""What the pixels of a field mean, in one place for packing, sources, methods, previews, tasks and lint.

A container says less than it seems: 16 bits may hold films of 12, a photograph may be stored lying on its side, a fourth channel is
opacity and no colour, a mask's numbers are classes or a picture. What a field's files are is found out once, when they are packed or
adopted, over all of them together (never image by image: they would no longer be comparable), and stands in its `meaning`:

    bits         bits of a pixel that are used: 2^bits - 1 becomes 255 (16-bit greys have it always)
    orientation  exif: some files carry an EXIF orientation, which is applied; stored: it is not, as asked
    opacity      black, white: what lies under partly transparent pixels; ignore: colours as stored. Without it they are refused
    object       masks: the object is what is at least this value; any: whatever is not 0 (several colours, soft edges)
    values       masks: the values that occur

Images come as uint8 [H, W, C], C 1 or 3; masks as their values, [H, W, 1], uint8 or uint16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.errors import DataError, bad
from shards.format.codecs import decode, image_shape
from shards.format.orientation import SIDEWAYS, orientation, upright

OPACITIES = {"black": 0, "white": 255, "ignore": None}
SPREAD = 16  # by how much the channels of a lossy grey may differ


@dataclass(frozen=True)
class Reading:
    """How the files of one field become pixels; see the module's head."""

    name: str = "image"
    bits: int | None = None
    turned: bool = False
    opacity: str | None = None
    least: int | None = None  # masks: object from this value on

    @property
    def mask(self) -> bool:
        return is_mask(self.name)

    @property
    def plain(self) -> bool:
        """Whether a JPEG's pixels are taken as they are decoded."""
        return not self.mask and not self.turned and (self.bits is None or self.bits >= 8)


def is_mask(name: str) -> bool:
    """Fields that say which pixels are what: their numbers are values, not brightness."""
    return name.startswith("mask")


def reading_of(name: str, meaning: Mapping[str, str], where: object = "dataset.json") -> Reading:
    """The reading that a field's meaning asks for.

    Raises:
        DataError: a word that means nothing.
    """
    bits, opacity, least = meaning.get("bits"), meaning.get("opacity"), meaning.get("object")
    if bits is not None and not (bits.isdecimal() and 1 <= int(bits) <= 16):
        raise _odd(name, "bits", bits, where, "a whole number from 1 to 16")
    if opacity is not None and opacity not in OPACITIES:
        raise _odd(name, "opacity", opacity, where, f"one of {', '.join(OPACITIES)}")
    if meaning.get("orientation", "stored") not in ("exif", "stored"):
        raise _odd(name, "orientation", meaning["orientation"], where, "exif or stored")
    if least is not None and least != "any" and not (least.isdecimal() and 1 <= int(least) <= 65535):
        raise _odd(name, "object", least, where, "any, or the least value of the object")
    return Reading(
        name,
        None if bits is None else int(bits),
        meaning.get("orientation") == "exif",
        opacity,
        None if least is None else 1 if least == "any" else int(least),
    )


def _odd(name: str, key: str, value: str, where: object, known: str) -> DataError:
    return bad(f"{name}.{key} is '{value}'", where, f"give {known}: --meaning {name}.{key}=VALUE")


def read_image(ext: str, data: bytes | memoryview, reading: Reading, where: object = "image") -> np.ndarray:
    """The pixels of a file: uint8 [H, W, 1 or 3], or a mask's values [H, W, 1].

    Raises:
        DataError: cannot be decoded; 16 bits without a word on how many are used; pixels that are partly transparent; a mask in
            several colours.
    """
    pixels = upright_pixels(ext, bytes(data), reading, where)
    return (
        mask_values(pixels, reading, where)
        if reading.mask
        else eight_bit(opaque(pixels, reading, where), reading, where)
    )


def form(ext: str, data: bytes, reading: Reading, where: object = "image") -> tuple[int, int, int]:
    """[H, W, C] that `read_image` would give, from the header."""
    height, width, channels = image_shape(ext, data, where, indexed=reading.mask)
    if reading.turned and orientation(ext, data) in SIDEWAYS:
        height, width = width, height
    return height, width, 1 if reading.mask or channels < 3 else 3


def upright_pixels(ext: str, data: bytes, reading: Reading, where: object = "image") -> np.ndarray:
    """Everything that the file holds, [H, W, C], turned if that is how the field is read."""
    pixels = decode(ext, data, where, indexed=reading.mask)
    number = orientation(ext, data) if reading.turned else 1
    return pixels if number == 1 else upright(pixels, number)


# ------------------------------------------------------------------------------------------------------------------- images


def opaque(pixels_HWC: np.ndarray, reading: Reading, where: object = "image") -> np.ndarray:
    """Without the channel of opacity, which must say nothing, or with pixels put on the ground that `opacity` names."""
    if pixels_HWC.shape[2] not in (2, 4):
        return pixels_HWC
    colours, opacity = pixels_HWC[..., :-1], pixels_HWC[..., -1:]
    if reading.opacity == "ignore" or opacity.min(initial=255) == 255:
        return np.ascontiguousarray(colours)
    if reading.opacity is None:
        fix = (
            f"say what lies under them: --meaning {reading.name}.opacity=black (or white), or =ignore for the colours as stored; "
            "or save the images without opacity"
        )
        raise bad(f"{np.mean(opacity < 255):.1%} of its pixels are partly transparent (opacity, or alpha)", where, fix)
    ground = OPACITIES[reading.opacity]
    assert ground is not None
    share = opacity.astype(np.uint32)
    return ((colours * share + ground * (255 - share) + 127) // 255).astype(np.uint8)


def eight_bit(pixels_HWC: np.ndarray, reading: Reading, where: object = "image") -> np.ndarray:
    """uint8, with the bits that are used spread over 0 to 255."""
    if pixels_HWC.dtype == np.uint8:
        return pixels_HWC if reading.bits is None or reading.bits >= 8 else _spread(reading.bits)[pixels_HWC]
    if reading.bits is None:
        raise bad("a 16-bit image, and nothing says how many of its bits are used", where, bits_fix(reading.name))
    return _spread(reading.bits)[pixels_HWC]


def bits_fix(name: str) -> str:
    state = f"python -m shards meaning DIR {name}.bits=12"
    return f"run `python -m shards index` on the folder, which looks at all of them, or state it: {state}"


@lru_cache(maxsize=16)
def _spread(bits: int) -> np.ndarray:
    """uint8 [65536]: 0 to 2^bits - 1 evenly on 0 to 255, rounded; what lies above is as bright as it gets."""
    top = (1 << bits) - 1
    value = np.minimum(np.arange(1 << 16, dtype=np.int64), top)
    return ((value * 510 + top) // (2 * top)).astype(np.uint8)


# -------------------------------------------------------------------------------------------------------------------- masks


def mask_values(pixels_HWC: np.ndarray, reading: Reading, where: object = "mask") -> np.ndarray:
    """The values [H, W, 1] of a mask in grey, in one colour, or in a palette's numbers; 0 and 255 where `object` decides."""
    plane = _plane(_painted(pixels_HWC, reading, where), reading, where)
    if reading.least is not None:
        plane = np.where(plane >= reading.least, np.uint8(255), np.uint8(0))
    return plane[..., None]


def _painted(pixels_HWC: np.ndarray, reading: Reading, where: object) -> np.ndarray:
    """A mask without opacity: colours alone say what is painted, or they and the opacity must say the same."""
    if pixels_HWC.shape[2] not in (2, 4):
        return pixels_HWC
    colours, opacity = pixels_HWC[..., :-1], pixels_HWC[..., -1]
    if reading.opacity != "ignore" and opacity.min(initial=255) < 255:
        hidden = opacity == 0
        if not (hidden | (opacity == 255)).all() or colours[hidden].any():
            what = "its opacity (alpha) and its colours do not say the same: which is the mask cannot be told"
            fix = f"save it in one grey channel, or take the colours: --meaning {reading.name}.opacity=ignore"
            raise bad(what, where, fix)
    return colours


def _plane(colours_HWC: np.ndarray, reading: Reading, where: object) -> np.ndarray:
    """One channel [H, W]: grey, the only channel in use, or the only colour."""
    if colours_HWC.shape[2] == 1:
        return colours_HWC[..., 0]
    top, low = colours_HWC.max(-1), colours_HWC.min(-1)
    if (top == low).all() or (colours_HWC.reshape(-1, 3).any(0).sum() == 1):
        return top
    if reading.least is not None and (reading.least == 1 or int((top - low).max()) <= SPREAD):
        return top
    colours = np.unique(colours_HWC[top > 0].reshape(-1, 3), axis=0)
    if len(colours) == 1:
        return top
    shown = ", ".join("#" + "".join(f"{v:02x}" for v in c) for c in colours[:3].tolist())
    fix = f"save classes as numbers (a grey or palette PNG); if every colour is the object: --meaning {reading.name}.object=any"
    raise bad(f"a mask in {len(colours)} colours ({shown}): which class each of them is cannot be told", where, fix)

"""A look at all images of a data set, and what their pixels mean as far as the files can tell: see shards/format/images.py.

Nothing is decided by one file: the bits that are used, the values of masks and their conventions are those of a whole field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards.errors import DataError, Problem
from shards.format.codecs import check_jpeg, check_whole, decode, eighth, png_form
from shards.format.describe import HeaderError
from shards.format.images import Reading, eight_bit, is_mask, mask_values, opaque, reading_of
from shards.format.orientation import orientation

DEPTHS = (8, 10, 12, 14, 16)  # of detectors
FEW_LEVELS = 64  # of 256: less is a range that was not scaled
ALMOST_ALL = 0.999  # of the pixels
ABOVE = 0.01  # share of the pixels that stated bits may leave at the top
SOFT_VALUES = 8  # more values than that, and most of the object near the largest: edges, not classes
LISTED = 16  # values in a meaning
FLAG = "--meaning"


@dataclass
class Seen:
    """Counts over the files of one field."""

    files: int = 0
    deep: int = 0  # of 16 bits
    turned: list[str] = field(default_factory=list)  # keys of files with an EXIF orientation
    lossy: list[str] = field(default_factory=list)
    opaque: int = 0  # with a channel of opacity that says nothing
    largest: int = 0  # of masks, before `object` decides; of 8-bit images, no further than it takes
    grounded: int = 0  # with pixels that were put on a ground
    narrow: int = 0  # masks in grey of 2 or 4 bits
    indexed: int = 0  # masks with a palette
    # How often each value stands, up to 16 bits; empty until one is counted, since it is half a megabyte.
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    tops: dict[int, str] = field(default_factory=dict)  # largest value of a mask -> first key
    pairs: set[tuple[int, int]] = field(
        default_factory=set
    )  # values that stand in one mask together: see `_two_makers`

    @property
    def values(self) -> np.ndarray:
        return np.flatnonzero(self.histogram)

    def count(self, values: np.ndarray | slice, counted: np.ndarray) -> None:
        """Adds so many of each of some values."""
        if not len(self.histogram):
            self.histogram = np.zeros(1 << 16, np.int64)
        self.histogram[values] += counted

    def merge(self, later: Seen) -> None:
        """Adds the counts over files that come after these."""
        for name in ("files", "deep", "opaque", "grounded", "narrow", "indexed"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.turned += later.turned
        self.lossy += later.lossy
        self.largest = max(self.largest, later.largest)
        if len(later.histogram):
            self.count(slice(None), later.histogram)
        self.tops |= {v: k for v, k in later.tops.items() if v not in self.tops}
        self.pairs |= later.pairs

    def dump(self) -> dict[str, Any]:
        """As JSON, for `load`; of the histogram the values that occur."""
        counted = self.values
        histogram = [counted.tolist(), self.histogram[counted].tolist()]
        return {**vars(self), "histogram": histogram, "tops": [*self.tops.items()], "pairs": sorted(self.pairs)}

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Seen], tuple[dict[str, Any]]]:
        """A process hands over few values of the histogram's 65,536."""
        return Seen.load, (self.dump(),)

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Seen:
        seen = cls(**{**dumped, "tops": dict(dumped["tops"]), "pairs": {(a, b) for a, b in dumped["pairs"]}})
        values, counts = dumped["histogram"]
        seen.histogram = np.zeros(0, np.int64)
        if values:
            seen.count(np.array(values, np.int64), counts)
        return seen


@dataclass
class Settled:
    """What was found: meanings by field, lines for a person, what is wrong, and what is worth a look."""

    meanings: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


class ImageTally:
    """Call `add` for every image, then `settle`.

    Args:
        stated: meanings that the user gave, or that a data set holds.
        keep_orientation: leave photographs as stored.
        by_codes: a JPEG that need not be looked at is told whole by its Huffman codes where they can tell it.
    """

    def __init__(
        self,
        stated: Mapping[str, Mapping[str, str]] | None = None,
        keep_orientation: bool = False,
        by_codes: bool = False,
    ):
        self.stated, self.keep, self.by_codes = stated or {}, keep_orientation, by_codes
        self.seen: dict[str, Seen] = {}

    def turned(self, name: str) -> bool:
        """Whether this field's photographs are turned as their EXIF says."""
        return not self.keep and self.stated.get(name, {}).get("orientation") != "stored"

    def merge(self, later: ImageTally) -> None:
        """Takes in what another tally saw, of files that come after those of this one."""
        for name, seen in later.seen.items():
            self.seen.setdefault(name, Seen()).merge(seen)

    def dump(self) -> dict[str, Any]:
        """What was seen, as JSON."""
        return {name: seen.dump() for name, seen in self.seen.items()}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> ImageTally:
        """A tally of what another one saw, to be merged."""
        tally = cls()
        tally.seen = {name: Seen.load(seen) for name, seen in dumped.items()}
        return tally

    def add(self, key: str, name: str, ext: str, data: bytes, skim: bool = False) -> np.ndarray | None:
        """Looks at one file; its pixels before any scaling, or None where `skim` or `by_codes` left no need to decode it.

        Of a JPEG whose field has shown that it is bright enough these are those of an eighth of its size, in grey: all of its bytes are
        decoded, and nothing but damage is to be found in them.

        Raises:
            HeaderError: what is wrong with this file alone.
        """
        if (seen := self.seen.get(name)) is None:
            seen = self.seen[name] = Seen()
        seen.files += 1
        if orientation(ext, data) > 1:
            seen.turned.append(key)
        try:
            reading = reading_of(name, self.stated.get(name, {}), FLAG)
        except DataError as e:  # what was stated is odd, not the file
            raise HeaderError(e.problems[0].what, e.problems[0].fix) from e
        try:
            if skim and not _worth_decoding(name, ext, data):
                return None
            if not self._asks_for_values(seen, ext, reading):
                if not self.by_codes:
                    return eighth(data)
                check_jpeg(data)
                return None
            pixels = decode(ext, data, indexed=reading.mask)
            check_whole(ext, data)
        except DataError as e:
            raise HeaderError(e.problems[0].what) from e
        try:
            return self._mask(key, ext, data, pixels, reading) if reading.mask else self._image(seen, pixels, reading)
        except DataError as e:
            raise HeaderError(e.problems[0].what, e.problems[0].fix) from e

    def saw(self, name: str, pixels: np.ndarray) -> None:
        """Counts the values of an 8-bit image that was skimmed, and decoded elsewhere."""
        self._image(self.seen[name], pixels, Reading(name))

    @staticmethod
    def _asks_for_values(seen: Seen, ext: str, reading: Reading) -> bool:
        """Whether what is told of a field depends on the values of one file more."""
        return ext == "png" or reading.mask or seen.largest < FEW_LEVELS or reading.bits is not None

    def _image(self, seen: Seen, pixels: np.ndarray, reading: Reading) -> np.ndarray:
        plain = opaque(pixels, reading)
        if plain.shape != pixels.shape:
            whole = bool(pixels[..., -1].min(initial=255) == 255)
            seen.opaque, seen.grounded = seen.opaque + whole, seen.grounded + (not whole)
        pixels = plain
        if pixels.dtype == np.uint16:
            seen.deep += 1
            _count(seen, pixels)
        elif seen.largest < FEW_LEVELS or reading.bits is not None:
            # Counting every value of large photographs would take longer than decoding them.
            seen.largest = max(seen.largest, int(pixels.max(initial=0)))
        return pixels

    def _mask(self, key: str, ext: str, data: bytes, pixels: np.ndarray, reading: Reading) -> np.ndarray:
        seen = self.seen[reading.name]
        seen.opaque += pixels.shape[2] in (2, 4)
        if ext == "png":
            depth, colour = png_form(data)
            seen.indexed, seen.narrow = seen.indexed + (colour == 3), seen.narrow + (colour == 0 and depth in (2, 4))
        elif reading.least is None:
            seen.lossy.append(key)
        plane = mask_values(pixels, reading)
        seen.largest = max(seen.largest, int(pixels.max(initial=0)))
        _count_mask(seen, key, plane)
        return plane

    def add_values(self, key: str, name: str, values: np.ndarray) -> None:
        """The values of a mask that a source has read itself."""
        seen = self.seen.setdefault(name, Seen())
        seen.files += 1
        _count_mask(seen, key, values)

    # ------------------------------------------------------------------------------------------------------------- settling

    def settle(self) -> Settled:
        found = Settled()
        for name, seen in sorted(self.seen.items()):
            meaning = dict(self.stated.get(name, {}))
            if not _understood(name, meaning):
                continue  # each of its files was refused with the reason
            self._orientation(name, seen, meaning, found)
            if is_mask(name):
                _settle_mask(name, seen, meaning, found)
            else:
                _settle_image(name, seen, meaning, found)
            if meaning:
                found.meanings[name] = meaning
        return found

    def _orientation(self, name: str, seen: Seen, meaning: dict[str, str], found: Settled) -> None:
        if not seen.turned:
            return
        meaning["orientation"] = "exif" if self.turned(name) else "stored"
        what = f"{name}: {len(seen.turned)} of {seen.files} files carry an EXIF orientation (such as {', '.join(seen.turned[:3])})"
        if self.turned(name):
            found.notes.append(
                f"{what}, which is applied: they are read upright, and masks must lie on them so (--keep-orientation leaves them as stored)"
            )
        else:
            found.notes.append(f"{what}, which is not applied: pixels stay as stored, as asked")


def _understood(name: str, meaning: Mapping[str, str]) -> bool:
    try:
        reading_of(name, meaning)
    except DataError:
        return False
    return True


def _worth_decoding(name: str, ext: str, data: bytes) -> bool:
    if is_mask(name):
        return True
    if ext != "png":
        return False
    depth, colour = png_form(data)
    return depth == 16 or colour in (4, 6) or b"tRNS" in data


def _count(seen: Seen, pixels: np.ndarray) -> np.ndarray:
    """Adds the values of an image; those that occur in it."""
    counted = np.bincount(pixels.ravel())
    seen.count(slice(len(counted)), counted)
    return np.flatnonzero(counted)


def _count_mask(seen: Seen, key: str, plane: np.ndarray) -> None:
    values = _count(seen, plane)
    seen.tops.setdefault(int(values.max(initial=0)), key)
    if 1 in values:
        seen.pairs |= {(1, int(v)) for v in values if v > 1}


# ------------------------------------------------------------------------------------------------------------------- images


def _settle_image(name: str, seen: Seen, meaning: dict[str, str], found: Settled) -> None:
    if seen.grounded:
        found.notes.append(f"{name}: {seen.grounded} images with transparent pixels, opacity: {meaning['opacity']}")
    if seen.opaque:
        found.notes.append(
            f"{name}: {seen.opaque} images have a channel of opacity that is full everywhere; it is left out"
        )
    if seen.deep:
        _settle_deep(name, seen, meaning, found)
    elif "bits" in meaning and seen.largest >= 1 << int(meaning["bits"]):
        what = f"values reach {seen.largest}, over the {(1 << int(meaning['bits'])) - 1} of {meaning['bits']} bits"
        found.problems.append(
            Problem(what, f"{FLAG} {name}.bits={meaning['bits']}", "state the bits that the files use")
        )
    elif "bits" not in meaning and 1 < seen.largest < FEW_LEVELS:
        what = f"no pixel of {seen.files} images is brighter than {seen.largest} of 255"
        bits = seen.largest.bit_length()
        fix = f"if the files hold {bits} bits, state {FLAG} {name}.bits={bits}"
        found.warnings.append(Problem(what, f"field '{name}'", fix))


def _settle_deep(name: str, seen: Seen, meaning: dict[str, str], found: Settled) -> None:
    """16-bit greys: the bits that are used, and how many of their levels are left."""
    values, stated = seen.values, "bits" in meaning
    lowest, largest = int(values[0]), int(values[-1])
    bits = int(meaning.setdefault("bits", str(next(b for b in DEPTHS if largest < 1 << b))))
    top = (1 << bits) - 1
    said = "as stated" if stated else f"the largest value of all is {largest:,}"
    found.notes.append(f"{name}: 16-bit greys of {bits} bits ({said}); 0 to {top:,} becomes 0 to 255")
    _check_bits(name, seen, bits, stated, found)
    levels = len(np.unique(eight_bit(values.astype(np.uint16)[None, :, None], reading_of(name, meaning))))
    if len(values) > levels and levels < FEW_LEVELS:
        what = f"of {len(values):,} grey levels {levels} are left in 8 bits (values {lowest:,} to {largest:,})"
        fix = f"scale the files to the range that matters, or state {FLAG} {name}.bits=N"
        found.warnings.append(Problem(what, f"field '{name}'", fix))


def _check_bits(name: str, seen: Seen, bits: int, stated: bool, found: Settled) -> None:
    total = int(seen.histogram.sum())
    above = int(seen.histogram[1 << bits :].sum())
    if above > ABOVE * total:
        what = f"{above / total:.1%} of the pixels are above {(1 << bits) - 1:,}, the largest value of {bits} bits"
        found.problems.append(
            Problem(what, f"{FLAG} {name}.bits={bits}", "state the bits that the files use, or leave it out")
        )
    elif above:
        found.notes.append(
            f"{name}: {above:,} pixels above {(1 << bits) - 1:,} ({above / total:.2%}) are as bright as that"
        )
    most = int(np.searchsorted(np.cumsum(seen.histogram), ALMOST_ALL * total))
    usual = next(b for b in DEPTHS if most < 1 << b)
    if not stated and bits - usual >= 2:
        what = f"{ALMOST_ALL:.1%} of the pixels are at most {most:,}, a few reach {int(seen.values[-1]):,}: {bits} bits leave the most dark"
        fix = f"if those few are markers or faults, state {FLAG} {name}.bits={usual}"
        found.warnings.append(Problem(what, f"field '{name}'", fix))


# -------------------------------------------------------------------------------------------------------------------- masks


def _settle_mask(name: str, seen: Seen, meaning: dict[str, str], found: Settled) -> None:
    if seen.opaque:
        found.notes.append(f"{name}: {seen.opaque} masks have a channel of opacity; it is left out")
    if seen.narrow:
        found.notes.append(
            f"{name}: {seen.narrow} masks are greys of 2 or 4 bits; their values are the numbers in the file"
        )
    problems = list(_mask_problems(name, seen))
    least = meaning.get("object", "any")
    if least.isdecimal() and seen.largest and seen.largest < int(least):
        what = f"the largest value of all masks is {seen.largest}: none of it would be the object"
        problems.append(Problem(what, f"{FLAG} {name}.object={least}", "state a value that the masks hold"))
    found.problems += problems
    values = seen.values.tolist()
    if problems or not values:
        return
    few = " ".join(map(str, values))
    meaning["values"] = few if len(values) <= LISTED else f"{values[0]} to {values[-1]} ({len(values)} values)"
    found.notes.append(f"{name}: values {meaning['values']}" + (" (nothing is painted)" if values == [0] else ""))
    if values == [0]:
        what = f"none of {seen.files} masks holds any object"
        found.warnings.append(Problem(what, f"field '{name}'", "check the masks, or leave the field out"))


def _mask_problems(name: str, seen: Seen) -> Iterator[Problem]:
    where, values = f"field '{name}'", seen.values
    top = int(values[-1]) if len(values) else 0
    half = max(1, (top + 1) // 2)
    fix = f"save them as PNG, or say from which value on it is the object: {FLAG} {name}.object={half}"
    if seen.lossy:
        what = f"{len(seen.lossy)} of {seen.files} masks are JPEG (such as {', '.join(seen.lossy[:3])}): their edges hold made-up values"
        yield Problem(what, where, fix)
    elif _soft(seen):
        what = f"{len(values)} values from {int(values[0])} to {top}, most of the object near the largest: soft edges, not classes"
        yield Problem(what, where, fix.replace("save them as PNG", "save them with hard edges"))
    elif _two_makers(seen):
        a, b = seen.tops[1], seen.tops[top]
        what = f"the object is 1 in some masks (such as '{a}') and {top} in others (such as '{b}')"
        yield Problem(what, where, f"bring all of them to one value; if both are the object: {FLAG} {name}.object=any")
    if len(values) == 1 and top:
        what = f"every pixel of all {seen.files} masks is {top}: there is nothing that is not the object"
        yield Problem(what, where, "check how the masks were saved, or leave the field out")


def _soft(seen: Seen) -> bool:
    """Many values, and most of what is painted close to the largest: a smoothed picture. Classes are spread, and palettes are classes."""
    values = seen.values
    painted = seen.histogram[1:].sum()
    if seen.indexed or (values > 0).sum() <= SOFT_VALUES or not painted:
        return False
    near = seen.histogram[int(np.ceil(0.9 * values[-1])) :].sum()
    return bool(near > painted / 2)


def _two_makers(seen: Seen) -> bool:
    """Masks of 0 and 1 beside masks of 0 and 255, and no mask with both: two conventions, not two classes."""
    above = [int(v) for v in seen.values if v > 0]
    return len(above) == 2 and above[0] == 1 and above[1] in (255, 65535) and (1, above[1]) not in seen.pairs

"""What the members of a data set look like: header reading, and the tally that becomes `dataset.json`'s fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shards.errors import DataError, Problem
from shards.format.bags import FIX as FIX_BAG
from shards.format.bags import is_bag
from shards.format.images import Reading, form, is_mask
from shards.format.info import KINDS, FieldInfo
from shards.format.npy import MAX_HEADER, NpyError, header_length, parse_header

HEADER_BYTES = MAX_HEADER
MEND_FILE = "mend the reference, or bring the file that it names again"


@dataclass(frozen=True)
class Header:
    """Form of one member. Arrays: NPY dtype and shape; images: uint8, [H, W, C]; texts and JSON: neither."""

    dtype: str | None = None
    shape: tuple[int, ...] | None = None


class HeaderError(ValueError):
    """A member's bytes are not what its extension says. The message is the `what` of a Problem, `fix` its remedy."""

    def __init__(self, what: str, fix: str = MEND_FILE):
        super().__init__(what)
        self.fix = fix


def npy_header(data: bytes) -> Header:
    """Form of an array from the first bytes of its NPY.

    Raises:
        HeaderError: not an NPY of numbers (objects, text, records), or in Fortran order.
    """
    try:
        head = parse_header(data[: header_length(data[:12])])
    except NpyError as e:
        raise HeaderError(str(e)) from e
    if head.fortran and len(head.shape) > 1:
        raise HeaderError(
            "is in Fortran order, whose rows cannot be read alone",
            "store np.ascontiguousarray of it, or pack from its source",
        )
    return Header(head.dtype.name, head.shape)


def image_header(name: str, ext: str, data: bytes, turned: bool = True) -> Header:
    """Form of a JPEG or PNG as it is read, from its header: nothing is decoded. The dtype is that of the file.

    `turned`: EXIF orientation is applied.

    Raises:
        HeaderError: not such an image, or more than `format.MAX_PIXELS` pixels.
    """
    try:
        shape = form(ext, data, Reading(name, turned=turned))
    except DataError as e:
        raise HeaderError(e.problems[0].what) from e
    deep = ext == "png" and data[24] == 16
    return Header("uint16" if deep else "uint8", shape)


def header_of(name: str, ext: str, data: bytes, turned: bool = True) -> Header:
    """The form of a member from its first bytes (HEADER_BYTES suffice for NPY; an image needs all of its bytes)."""
    kind = KINDS[ext]
    if kind == "array":
        return npy_header(data)
    return image_header(name, ext, data, turned) if kind == "image" else Header()


@dataclass
class _Seen:
    exts: Counter[str] = field(default_factory=Counter)
    dtypes: dict[str, str] = field(default_factory=dict)  # value -> first key that had it
    ranks: dict[int, str] = field(default_factory=dict)
    sizes: list[set[int]] = field(default_factory=list)  # distinct sizes of each axis, while few
    widths: dict[int, str] = field(default_factory=dict)
    count: int = 0


def _named(key: str, source: str) -> str:
    return f"'{key}'" + f", {source}" * bool(source)


class FieldTally:
    """Collects the form of every member and says what does not fit together."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._sample: tuple[str, dict[str, tuple[int, ...]]] = ("", {})  # sizes of the images of the sample at hand
        self._uneven: dict[str, list[str]] = {}  # mask field -> samples in which it does not lie on the image

    def add(self, key: str, name: str, ext: str, header: Header, source: str = "") -> None:
        """Takes note of a member; `source` says where it came from, for messages."""
        if (seen := self._seen.get(name)) is None:
            seen = self._seen[name] = _Seen()
        seen.count += 1
        seen.exts[ext] += 1
        if header.shape is None or header.dtype is None:
            return
        if KINDS[ext] == "image":
            self._lay_over(key, name, header.shape[:2])
        if header.dtype not in seen.dtypes or len(header.shape) not in seen.ranks:
            named = _named(key, source)
            seen.dtypes.setdefault(header.dtype, named)
            seen.ranks.setdefault(len(header.shape), named)
        if len(seen.ranks) > 1:
            return
        seen.sizes = seen.sizes or [set() for _ in header.shape]
        for axis, size in enumerate(header.shape):
            if len(seen.sizes[axis]) < 2:
                seen.sizes[axis].add(size)
        if KINDS[ext] == "array" and header.shape:
            seen.widths.setdefault(header.shape[-1], _named(key, source))

    def _lay_over(self, key: str, name: str, size: tuple[int, ...]) -> None:
        """Compares a mask with the image of its sample, whose members come one after the other in any order."""
        if key != self._sample[0]:
            self._sample = (key, {})
        sizes = self._sample[1]
        sizes[name] = size
        image = sizes.get("image")
        for mask in [n for n in sizes if is_mask(n)] if name == "image" else [name] * is_mask(name):
            if image is not None and sizes[mask] != image:
                (h, w), (H, W) = sizes[mask], image
                self._uneven.setdefault(mask, []).append(f"'{key}' {h} x {w} on {H} x {W}")

    def merge(self, later: FieldTally) -> None:
        """Takes note of all that another tally saw, of samples that come after those of this one."""
        for name, theirs in later._seen.items():
            mine = self._seen.setdefault(name, _Seen())
            mine.count += theirs.count
            mine.exts += theirs.exts
            mine.dtypes |= {v: k for v, k in theirs.dtypes.items() if v not in mine.dtypes}
            mine.ranks |= {v: k for v, k in theirs.ranks.items() if v not in mine.ranks}
            mine.widths |= {v: k for v, k in theirs.widths.items() if v not in mine.widths}
            both = zip(mine.sizes, theirs.sizes, strict=False)
            mine.sizes = [a | b for a, b in both] if mine.sizes and theirs.sizes else mine.sizes or theirs.sizes
        for name, keys in later._uneven.items():
            self._uneven.setdefault(name, []).extend(keys)

    def dump(self) -> dict[str, Any]:
        """As JSON, for `load`."""
        return {
            "seen": {
                n: {
                    **vars(s),
                    "ranks": [*s.ranks.items()],
                    "widths": [*s.widths.items()],
                    "sizes": [[*a] for a in s.sizes],
                }
                for n, s in self._seen.items()
            },
            "uneven": self._uneven,
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> FieldTally:
        tally = cls()
        for name, s in dumped["seen"].items():
            seen = {"exts": Counter(s["exts"]), "ranks": dict(s["ranks"]), "widths": dict(s["widths"])}
            tally._seen[name] = _Seen(**{**s, **seen, "sizes": [{*a} for a in s["sizes"]]})
        tally._uneven = {n: [*k] for n, k in dumped["uneven"].items()}
        return tally

    @property
    def names(self) -> set[str]:
        """Fields that were seen."""
        return set(self._seen)

    def problems(self, vocab: dict[str, list[str]]) -> list[Problem]:
        """Members of one field that differ in kind, dtype, rank or width, or whose width is not that of the vocabulary;
        masks that do not lie on their image."""
        found = [
            Problem(f"arrays of {rank} axes (first in {key}): a bag has two", f"field '{name}'", FIX_BAG)
            for name, seen in sorted(self._seen.items())
            if is_bag(name)
            for rank, key in seen.ranks.items()
            if rank != 2
        ]
        for name, seen in sorted(self._seen.items()):
            forms: list[tuple[str, dict[Any, Any]]] = [
                ("kinds", _kinds(seen)),
                ("dtypes", seen.dtypes),
                ("ranks", seen.ranks),
                ("widths", seen.widths),
            ]
            for what, values in forms:
                if len(values) > 1:
                    listed = ", ".join(f"{v} (first in {k})" for v, k in list(values.items())[:4])
                    found.append(
                        Problem(
                            f"differing {what}: {listed}",
                            f"field '{name}'",
                            "all samples of a field must agree; mend the odd ones",
                        )
                    )
            width = next(iter(seen.widths), None)
            if name in vocab and len(seen.widths) == 1 and width != len(vocab[name]):
                what = f"arrays are {width} wide but the vocabulary has {len(vocab[name])} names"
                found.append(Problem(what, f"field '{name}'", "the vocabulary must name every column, in order"))
        for name, listed_keys in sorted(self._uneven.items()):
            what = f"{len(listed_keys)} masks have another size than their image: {', '.join(listed_keys[:4])}"
            found.append(Problem(what, f"field '{name}'", "bring the masks of these images, pixel on pixel"))
        return found

    def infos(
        self, vocab_sha256: dict[str, str], meanings: Mapping[str, Mapping[str, str]] | None = None
    ) -> dict[str, FieldInfo]:
        """The `fields` of dataset.json; `vocab_sha256` and `meanings` map a field to its vocabulary's hash and to what its numbers are."""
        infos = {}
        for name, seen in sorted(self._seen.items()):
            shape = tuple(next(iter(s)) if len(s) == 1 else None for s in seen.sizes) if seen.sizes else None
            infos[name] = FieldInfo(
                ext=seen.exts.most_common(1)[0][0],
                dtype=next(iter(seen.dtypes), None),
                shape=shape,
                vocab=f"vocab/{name}.txt" if name in vocab_sha256 else None,
                vocab_sha256=vocab_sha256.get(name),
                count=seen.count,
                meaning=dict((meanings or {}).get(name, {})),
            )
        return infos


def _kinds(seen: _Seen) -> dict[str, str]:
    return {KINDS[e]: f"'*.{e}'" for e in seen.exts}

"""The second witness of a leak: equal images or bags, whatever their patients are called.

Every member's size and CRC-32 stand in the index of its shard, so equal contents are found without reading a shard; where both agree,
the SHA-256 of the bytes decides. Images (no masks) and arrays of two axes or more (no coordinates) tell who somebody is. No witness is

    a content without variation, or of under 16 values: a black image is everybody's
    a content of over 10 people of one data set: a placeholder ("no image available"), a test pattern
    a matrix of codes, int8 or bool: two reports often say the same of every finding

Shape letters: M members (images and bags), N samples.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import BrokenSeal, DataError, Problem
from shards.format.info import KINDS, FieldInfo

if TYPE_CHECKING:
    from shards.read.dataset import Dataset

MANY = 10
MIN_VALUES = 16
CODES = ("int8", "bool")
SHOWN = 3
SIZES = np.uint64(2**32 - 1)  # larger contents count as of this size
FIX_NAMES = (
    "is one patient known by two names? Give both the same patient and pack again; if an image was doubled, drop one"
)


def is_witness(name: str, info: FieldInfo) -> bool:
    """Whether a field's content tells whose it is: an image, or a bag."""
    if name.startswith("mask") or name == "coords":
        return False
    return KINDS[info.ext] == "image" or (_is_matrix(info) and not is_answers(info))


def is_answers(info: FieldInfo) -> bool:
    """Whether an array holds answers to a table of questions (what a report says of each finding at each place): equal ones are common."""
    return _is_matrix(info) and info.dtype in CODES


def _is_matrix(info: FieldInfo) -> bool:
    return KINDS[info.ext] == "array" and info.shape is not None and len(info.shape) > 1


def tells(value: np.ndarray) -> bool:
    """Whether a decoded content can be somebody's own."""
    return value.size >= MIN_VALUES and bool((value != value.flat[0]).any())


def codes_of(index: np.ndarray) -> np.ndarray:
    """Size and CRC-32 of members of an index, as one uint64 each."""
    return (np.minimum(index["size"], SIZES) << np.uint64(32)) | index["crc32"].astype(np.uint64)


@dataclass(frozen=True)
class Contents:
    """The images and bags of a data set: code_M uint64 of each, sample_M its sample's number, field_M its field's in `fields`."""

    fields: tuple[str, ...]
    code_M: np.ndarray
    sample_M: np.ndarray
    field_M: np.ndarray

    def keep(self, chosen_M: np.ndarray) -> Contents:
        return Contents(self.fields, self.code_M[chosen_M], self.sample_M[chosen_M], self.field_M[chosen_M])


def contents_of(data: Dataset) -> Contents:
    """All images and bags of a data set, from its indexes alone; those of over MANY people are left out.

    Raises:
        DataError: an index is missing, or not the sealed one.
    """
    fields = tuple(n for n, f in sorted(data.info.fields.items()) if is_witness(n, f))
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for number, index in enumerate(data.indexes() if fields else ()):
        samples = data.info.shards[number].samples
        if int(index["sample"].max()) >= samples:
            raise BrokenSeal(
                Problem(f"its index names more than {samples} samples", data.info.shards[number].name, "lint it")
            )
        for k, name in enumerate(fields):
            rows = index[index["field"] == name.encode()]
            parts.append(
                (codes_of(rows), rows["sample"].astype(np.int64) + data.starts[number], np.full(len(rows), k, np.int64))
            )
    columns = (
        [np.concatenate(c) for c in zip(*parts, strict=True)]
        if parts
        else [np.empty(0, np.uint64), *np.empty((2, 0), np.int64)]
    )
    return _rare(Contents(fields, *columns), data.patient_codes)


def _rare(found: Contents, patient_N: np.ndarray) -> Contents:
    """Without the contents of over MANY people."""
    if not len(found.code_M):
        return found
    _, of_M = np.unique(found.code_M, return_inverse=True)
    patient_M = patient_N[found.sample_M]
    people = int(patient_M.max()) + 1
    pairs = np.unique(of_M * people + patient_M)
    many = np.bincount(pairs // people, minlength=int(of_M.max()) + 1) > MANY
    return found.keep(~many[of_M])


@dataclass(frozen=True)
class Twins:
    """Samples that hold the same content."""

    samples: tuple[int, ...]
    field: str


def across(data: Dataset, found: Contents, group_N: np.ndarray) -> Iterator[Twins]:
    """Contents of several people in several groups of samples, byte for byte.

    Args:
        group_N: the group of each sample of the data set, -1 for samples that do not count.
    """
    kept = found.keep(group_N[found.sample_M] >= 0)
    if not len(kept.code_M):
        return
    order = np.argsort(kept.code_M, kind="stable")
    kept = kept.keep(order)
    starts = np.flatnonzero(np.concatenate([[True], kept.code_M[1:] != kept.code_M[:-1]]))
    groups, people = group_N[kept.sample_M], data.patient_codes[kept.sample_M]
    several = _varies(groups, starts) & _varies(people, starts)
    ends = np.append(starts[1:], len(kept.code_M))
    for lo, hi in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        members = [(int(kept.sample_M[i]), kept.fields[kept.field_M[i]]) for i in range(lo, hi)]
        for same in _same_bytes(data, members).values():
            at = np.array([i for i, _ in same])
            if len(set(group_N[at].tolist())) > 1 and len(set(data.patient_codes[at].tolist())) > 1:
                yield Twins(tuple(dict.fromkeys(at.tolist())), same[0][1])


def _varies(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Whether each run of values, from one start to the next, holds different ones."""
    return np.minimum.reduceat(values, starts) != np.maximum.reduceat(values, starts)


def _same_bytes(data: Dataset, members: Sequence[tuple[int, str]]) -> dict[str, list[tuple[int, str]]]:
    """The members by the SHA-256 of their bytes; those that tell nothing are left out."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    blank: set[str] = set()
    for sample, field in members:
        sha = sha256_in(data, sample, field)
        if sha not in found and sha not in blank and not tells(np.asarray(data[sample].read(field))):
            blank.add(sha)
        if sha not in blank:
            found[sha].append((sample, field))
    return found


def sha256_in(data: Dataset, sample: int, field: str) -> str:
    """SHA-256 of a member's bytes as they are stored."""
    return hashlib.sha256(data.raw(sample, [field])[0]).hexdigest()


def telling(data: Dataset, found: Contents) -> Contents:
    """Without contents that have no variation: one member of each content is decoded."""
    codes, first = np.unique(found.code_M, return_index=True)
    good = [tells(np.asarray(data[int(found.sample_M[i])].read(found.fields[found.field_M[i]]))) for i in first]
    return found.keep(np.isin(found.code_M, codes[np.array(good, bool)]))


def twin_lines(data: Dataset, group_N: np.ndarray, names: Sequence[str]) -> Iterator[str]:
    """A line a field on equal contents under different patients in different groups, called `names`."""
    count, shown = Counter[str](), defaultdict[str, list[str]](list)
    for twins in across(data, contents_of(data), group_N):
        count[twins.field] += 1
        if count[twins.field] <= SHOWN:
            shown[twins.field].append(" = ".join(_place(data, i, names[group_N[i]]) for i in twins.samples[:3]))
    for field, n in count.items():
        some = "; ".join(shown[field]) + ("; ..." if n > SHOWN else "")
        yield f"{n} x the same '{field}' under different patients in different splits: {some}"


def _place(data: Dataset, sample: int, group: str) -> str:
    at = np.array([sample])
    return f"{data.keys_of(at)[0]} ({data.patients_of(at)[0]}, {group})"


def split_lines(data: Dataset) -> list[str]:
    """`twin_lines` of a data set's own splits, with the remedy; nothing where an index cannot be read, which lint says."""
    from shards.format.info import SPLITS

    try:
        if not _any_twice(data):
            return []
        return [f"{line}. {FIX_NAMES}" for line in twin_lines(data, data.split_codes, SPLITS)]
    except DataError:
        return []


def _any_twice(data: Dataset) -> bool:
    """Whether there may be two equal contents, by 8 bytes of each: of most sets nothing else has to be read."""
    fields = [n.encode() for n, f in data.info.fields.items() if is_witness(n, f)]
    parts = [codes_of(index[np.isin(index["field"], fields)]) for index in data.indexes()] if fields else []
    code_M = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
    return bool((code_M[1:] == code_M[:-1]).any())


def unique_codes(found: Contents, samples: Iterable[int] | np.ndarray) -> np.ndarray:
    """The codes of some samples' contents, ascending."""
    chosen = np.asarray(samples, np.int64)
    return np.unique(found.code_M[np.isin(found.sample_M, chosen)])

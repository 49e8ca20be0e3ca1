"""splits.csv and labels.csv in memory: keys, patients, splits and labels of every sample, in shard order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from shards.errors import BrokenSeal, DataError, Problem
from shards.format.info import SPLITS, DatasetInfo, LabelInfo
from shards.tables.cells import number
from shards.tables.columns import Marks
from shards.tables.identity import APART, PLAIN, person

if TYPE_CHECKING:
    import pyarrow as pa

PART = 1 << 14
"""Names that are objects of Python at a time."""
_REINDEX = "run `python -m shards index` on the folder"
_RESPLIT = "run `python -m shards split` on the folder"


class Names(Sequence[str]):
    """Strings of every sample, held compactly; an integer gives one, an array or slice gives a list."""

    def __init__(self, column: pa.Array):
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        return self._column[i].to_pylist() if isinstance(i, slice) else self._column[int(i)].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._column.to_pylist())

    def take(self, indices: np.ndarray) -> list[str]:
        starts_n, text = self._buffers
        starts, ends = starts_n[indices].tolist(), starts_n[indices + 1].tolist()
        return [str(text[a:b], "utf-8") for a, b in zip(starts, ends, strict=True)]

    @cached_property
    def _buffers(self) -> tuple[np.ndarray, memoryview]:
        """Where each string begins, and all of them; arrow's own `take` costs ten times more for a batch."""
        import pyarrow as pa

        column = self._column
        width = np.int64 if pa.types.is_large_string(column.type) else np.int32
        _, starts, text = column.buffers()
        starts_n = np.frombuffer(starts, width)[column.offset : column.offset + len(column) + 1]
        return starts_n, memoryview(text) if text is not None else memoryview(b"")

    def find(self, names: Iterable[str]) -> np.ndarray:
        """Positions of the names; -1 for a name that is not there."""
        import pyarrow.compute as pc

        found = pc.index_in(strings(names), value_set=self._column)
        return _or_minus_one(found)


@dataclass(frozen=True)
class SplitTable:
    """Row i is sample i: its key, its patient (`patient_codes` into `patient_names`, one for each person however they are written),
    its split (-1 for none)."""

    keys: Names
    patient_codes: np.ndarray
    patient_names: Names
    split_codes: np.ndarray


def read_splits(path: Path, info: DatasetInfo) -> SplitTable:
    """splits.csv, checked.

    Raises:
        DataError: wrong columns or number of rows, a sample twice, no patient, an unknown split, a patient in two splits
            (unless dataset.json says that this was accepted).
    """

    table = _read_csv(path, ["sample", "patient", "split"], info)
    patients = table["patient"].dictionary_encode()
    codes = _numbers(patients.indices).astype(np.int64)
    codes, names = _one_code_each(codes, spelled := patients.dictionary)
    splits = _codes(table["split"], SPLITS)
    problems = [*_repeated(table["sample"], path), *_unknown_splits(table["split"], splits, path)]
    if _is(names, "").any():
        problems.append(
            Problem("a sample without a patient", str(path), "patients are mandatory: splits and intervals go by them")
        )
    if not info.leaking_splits:
        problems += _torn_patients(codes, splits, names, path, len(spelled) - len(names))
    if problems:
        raise DataError(problems)
    return SplitTable(Names(table["sample"]), codes, Names(names), splits)


def read_labels(path: Path, info: DatasetInfo, keys: Names) -> dict[str, np.ndarray]:
    """labels.csv: int64 class codes (-1 missing) or float64 numbers (NaN missing) by label.

    Raises:
        DataError: wrong columns or rows, other samples than splits.csv, a class that dataset.json does not list, a word for a number.
    """
    table = _read_csv(path, ["sample", *info.labels], info)
    problems = []
    if not table["sample"].equals(keys._column):
        problems.append(Problem("its samples are not those of splits.csv, in order", str(path), _REINDEX))
    labels = {}
    for name, label in info.labels.items():
        labels[name], wrong = _label(table[name], label)
        if wrong:
            what = f"label '{name}' has values that are not {'classes' if label.kind == 'class' else 'numbers'}: {', '.join(wrong)}"
            problems.append(Problem(what, str(path), "mend the manifest and pack again"))
    if problems:
        raise DataError(problems)
    return labels


def _read_csv(path: Path, columns: list[str], info: DatasetInfo) -> dict[str, pa.Array]:
    import pyarrow as pa
    from pyarrow import csv

    try:
        sealed = info.files.get(path.name)
        data = path.read_bytes()
        if sealed is not None and hashlib.sha256(data).hexdigest() != sealed:
            what = "changed since the data set was opened (hash mismatch)"
            raise BrokenSeal(Problem(what, str(path), f"restore the file, or {_REINDEX} and start again"))
        as_text = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False)
        table = csv.read_csv(pa.BufferReader(data), convert_options=as_text)
    except (pa.ArrowInvalid, OSError) as e:
        raise DataError(Problem(f"cannot be read ({e})", str(path), _REINDEX)) from e
    missing = [c for c in columns if c not in table.column_names]
    if missing:
        raise DataError(
            Problem(f"no column {', '.join(missing)} (it has {', '.join(table.column_names)})", str(path), _REINDEX)
        )
    if len(table) != info.samples:
        raise DataError(Problem(f"{len(table)} rows for {info.samples} samples", str(path), _REINDEX))
    return {c: _one_chunk(table[c]) for c in columns}


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


# Whatever pyarrow makes of an object of Python, a string or a number, and its `to_numpy` load pandas first: half a second of every process
# that reads a data set. These do not.


def strings(values: Iterable[str]) -> pa.StringArray:
    import pyarrow as pa

    parts = [v.encode() for v in values]
    starts = np.cumsum([0, *map(len, parts)])
    if starts[-1] > np.iinfo(np.int32).max:
        return pa.array([str(p, "utf-8") for p in parts], pa.string())  # which says that it is too much
    return pa.StringArray.from_buffers(len(parts), pa.py_buffer(starts.astype(np.int32)), pa.py_buffer(b"".join(parts)))


def _is(column: pa.Array, value: str) -> np.ndarray:
    import pyarrow.compute as pc

    return _numbers(pc.equal(column, strings([value])[0]))


def _or_minus_one(found: pa.Array) -> np.ndarray:
    """Positions (int32), -1 where there is none."""
    import pyarrow as pa

    none = pa.Array.from_buffers(found.type, 1, [None, pa.py_buffer(np.array([-1], np.int32))])
    return _numbers(found.fill_null(none[0])).astype(np.int64)


def _numbers(column: pa.Array) -> np.ndarray:
    """Numbers or truths of a column without nulls; read-only."""
    import pyarrow as pa

    assert not column.null_count
    if pa.types.is_boolean(column.type):  # packed in bits
        return _numbers(column.cast(pa.uint8())).astype(bool)
    values, dtype = column.buffers()[1], np.dtype(column.type.to_pandas_dtype())
    return np.frombuffer(values or b"", dtype)[column.offset : column.offset + len(column)]


def _codes(column: pa.Array, names: Sequence[str]) -> np.ndarray:
    """Position of each value in `names`, -1 for others."""
    import pyarrow.compute as pc

    return _or_minus_one(pc.index_in(column, value_set=strings(names)))


def _label(column: pa.Array, label: LabelInfo) -> tuple[np.ndarray, list[str]]:
    """Codes or numbers of a column, and up to five values that are neither."""
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = _is(column, "")
    if label.kind == "class":
        codes = _codes(column, label.classes)
        wrong = (codes < 0) & ~empty
        return codes, _first_values(column, wrong)
    try:
        numbers = pc.cast(pc.if_else(pc.equal(column, strings([""])[0]), strings(["nan"])[0], column), pa.float64())
        return _numbers(numbers), []
    except pa.ArrowInvalid:
        return np.full(len(column), np.nan), [v for v in pc.unique(column).to_pylist() if v and number(v) is None][:5]


def _first_values(column: pa.Array, wrong: np.ndarray) -> list[str]:
    # Without a look at nothing: `take` loads pandas too.
    return sorted(set(column.take(np.flatnonzero(wrong)).to_pylist()))[:5] if wrong.any() else []


def _repeated(samples: pa.Array, path: Path) -> Iterator[Problem]:
    import pyarrow.compute as pc

    counts = pc.value_counts(samples)
    many = np.flatnonzero(_numbers(counts.field("counts")) > 1)
    if len(many):
        names = counts.field("values").take(many).to_pylist()
        yield Problem(
            f"{len(names)} samples stand twice ({', '.join(names[:5])})",
            str(path),
            "give every sample a key of its own and pack again",
        )


def _unknown_splits(column: pa.Array, codes: np.ndarray, path: Path) -> Iterator[Problem]:

    wrong = (codes < 0) & ~_is(column, "")
    if wrong.any():
        yield Problem(
            f"unknown split {', '.join(map(repr, _first_values(column, wrong)))}",
            str(path),
            f"use {', '.join(SPLITS)} or an empty cell",
        )


def _one_code_each(codes: np.ndarray, names: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Codes and names with one of each person: people who are written in several ways keep their first spelling."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Without a look at each name of a form that tells people apart: a million of them would take ten seconds.
    alike = {pattern: _numbers(pc.match_substring_regex(names, f"^(?:{pattern})$")) for pattern in APART}
    if any(a.all() for a in alike.values()):
        return codes, names
    plain, marks = alike[PLAIN], Marks()
    for at in range(0, len(names), PART):
        some = names.slice(at, PART).to_pylist()
        for name, is_plain in zip(some, plain[at : at + PART].tolist(), strict=True):
            marks.append(name if is_plain else person(name))
    kept = marks.first()
    at_K, renumbered = np.unique(kept, return_inverse=True)
    if len(at_K) == len(names):
        return codes, names
    return renumbered[codes], names.take(pa.array(at_K))


def _torn_patients(
    codes: np.ndarray, splits: np.ndarray, names: pa.Array, path: Path, respelled: int
) -> Iterator[Problem]:
    """Patients whose samples stand in two splits: what is learnt from one half would be tested on the other."""
    used = splits >= 0
    seen = np.zeros((len(names), len(SPLITS)), bool)
    seen[codes[used], splits[used]] = True
    several = np.flatnonzero(seen.sum(1) > 1)
    if len(several):
        torn = names.take(several).to_pylist()
        some = f"; {respelled} names are another spelling of one before, as 1000.0 is of 1000" if respelled else ""
        yield Problem(f"{len(torn)} patients stand in two splits ({', '.join(torn[:5])}){some}", str(path), _RESPLIT)

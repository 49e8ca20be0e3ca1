"""Lint's second reckoning: counts of dataset.json and stats.npz against what the members and tables say."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from shards.errors import Problem
from shards.format.describe import FieldTally
from shards.format.images import is_mask
from shards.format.info import KINDS, DatasetInfo
from shards.format.npy import UNREADABLE_NPZ, NpyError, check_size, header_length, parse_header
from shards.format.seal import SampleRow, is_torn, split_counts
from shards.read.stats import Moments, arrays_of
from shards.tables.repeats import distinct

FIX = "pack again, or run `python -m shards index` on the folder"
FIX_STATS = "run `python -m shards seal` on the folder: they are fitted anew, the splits stay as they are"
# Sums in another order, or by another NumPy, differ in the last digits.
TOLERANCE = 1e-4


def counts(info: DatasetInfo, rows: Sequence[SampleRow], whole: bool) -> Iterator[Problem]:
    """`rows` are those of splits.csv and labels.csv; `whole`: every cell of both could be read."""
    where = "dataset.json"
    for count, what in ((len(rows), "splits.csv has"), (sum(s.samples for s in info.shards), "its shards have")):
        if count != info.samples:
            yield Problem(f"says {info.samples} samples, {what} {count}", where, FIX)
    patients = distinct(r.patient for r in rows)
    if patients != info.patients:
        yield Problem(f"says {info.patients} patients, splits.csv has {patients}", where, FIX)
    for name in split_counts(rows).keys() - info.splits.keys():
        yield Problem(f"says nothing of split '{name}', which splits.csv has", where, FIX)
    if info.leaking_splits and not is_torn(rows):
        yield Problem("says leaking_splits, but no patient stands in two splits", where, FIX)
    known, found = Counter[str](), {name: set[object]() for name in info.labels}
    for row in rows if whole else ():
        known.update(row.labels.keys())
        for name, value in row.labels.items():
            if info.labels[name].classes:
                found[name].add(value)
    for name, label in info.labels.items() if whole else ():
        if (missing := len(rows) - known[name]) != label.missing:
            yield Problem(
                f"says that label '{name}' is missing {label.missing} times, labels.csv: {missing}", where, FIX
            )
        unused = [c for c in label.classes if c not in found[name]]
        if unused or len(set(label.classes)) != len(label.classes):
            said = f"without a sample: {', '.join(unused[:5])}" if unused else "twice"
            yield Problem(f"lists classes of label '{name}' {said}", where, FIX)


def forms(info: DatasetInfo, tally: FieldTally) -> Iterator[Problem]:
    """Kind, dtype and shape of fields. Where dataset.json leaves a size open, any size is right."""
    for name, seen in tally.infos({}).items():
        said = info.fields.get(name)
        if said is None:
            continue  # reported member by member
        if KINDS[said.ext] != KINDS[seen.ext]:
            yield Problem(f"says that field '{name}' is {said.ext}, its members are {seen.ext}", "dataset.json", FIX)
        elif KINDS[said.ext] == "image" and said.dtype not in (None, seen.dtype):
            yield Problem(
                f"says that field '{name}' is {said.dtype}, its members are {seen.dtype}", "dataset.json", FIX
            )
        elif (
            KINDS[said.ext] == "image"
            and said.shape is not None
            and not _covers(_as_read(name, said.shape), seen.shape)
        ):
            yield Problem(
                f"says that field '{name}' is {_text(said.shape)}, its members are {_text(seen.shape)}",
                "dataset.json",
                FIX,
            )


def _as_read(name: str, shape: Sequence[int | None]) -> Sequence[int | None]:
    """Earlier versions counted opacity, and the colours of masks, among an image's channels."""
    *size, channels = shape
    if channels is None:
        return shape
    return (*size, 1 if is_mask(name) or channels < 3 else 3)


def _covers(said: Sequence[int | None], seen: Sequence[int | None] | None) -> bool:
    return seen is not None and len(said) == len(seen) and all(a in (None, b) for a, b in zip(said, seen, strict=True))


def _text(shape: Sequence[int | None] | None) -> str:
    return "of several ranks" if shape is None else str(["any" if n is None else n for n in shape]).replace("'", "")


def statistics(folder: Path, info: DatasetInfo, moments: Mapping[str, Moments]) -> Iterator[Problem]:
    """stats.npz against moments of the training samples, fitted while the members were read."""
    path = folder / "stats.npz"
    if "stats.npz" not in info.files:
        if moments:
            yield Problem(
                f"no statistics of {', '.join(sorted(moments))} are sealed in dataset.json", str(path), FIX_STATS
            )
        return
    if not path.is_file():
        return  # reported as a side file
    wanted = arrays_of(moments)
    try:
        stored = _stored(path.read_bytes(), max((a.nbytes for a in wanted.values()), default=0))
    except UNREADABLE_NPZ as e:
        yield Problem(f"cannot be read ({e})", str(path), FIX_STATS)
        return
    for name in moments:
        mean, std = (stored.get(f"{name}.{what}") for what in ("mean", "std"))
        if mean is None or std is None or mean.shape != wanted[f"{name}.mean"].shape or std.shape != mean.shape:
            yield Problem(f"has no mean and deviation of '{name}' in its width", str(path), FIX_STATS)
            continue
        spread_D = wanted[f"{name}.std"]
        off_D = _off(mean, wanted[f"{name}.mean"], spread_D) | _off(std, spread_D, spread_D)
        constant = stored.get(f"{name}.constant")
        if constant is not None:
            off_D |= constant != wanted[f"{name}.constant"]
        if off_D.any():
            at = int(np.argmax(off_D))
            said, found = (f"{a[f'{name}.mean'][at]:.6g} +- {a[f'{name}.std'][at]:.6g}" for a in (stored, wanted))
            what = f"{int(off_D.sum())} features of '{name}' are other in the training split, such as column {at}:"
            what += f" {said}, fitted anew {found}"
            yield Problem(what, str(path), FIX_STATS)
    if extra := {n.rpartition(".")[0] for n in stored} - set(moments) - set(info.fields):
        yield Problem(f"has statistics of {', '.join(sorted(extra))}, which is no field", str(path), FIX_STATS)


def _off(stored_D: np.ndarray, wanted_D: np.ndarray, std_D: np.ndarray) -> np.ndarray:
    """Where two values differ by more than rounding; NaN differs from everything."""
    return ~(np.abs(stored_D - wanted_D) <= TOLERANCE * (std_D + np.abs(wanted_D)))


def _stored(data: bytes, largest: int) -> dict[str, np.ndarray]:
    """The arrays of an NPZ, none of them larger than `largest` bytes with its header: nothing else is unpacked.

    Raises:
        NpyError: a larger one, or no array.
    """
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for entry in file.infolist():
            if entry.file_size > largest + 1024:
                raise NpyError(f"{entry.filename} has {entry.file_size} bytes, at most {largest} are due")
            with file.open(entry) as f:
                member = f.read(largest + 1024)
            header = parse_header(member[: header_length(member[:12])])
            check_size(header, len(member))
            arrays[entry.filename.removesuffix(".npy")] = np.frombuffer(
                member, header.dtype, offset=header.start
            ).reshape(header.shape)
    return arrays

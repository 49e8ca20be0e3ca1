"""Normalisation statistics of the vector fields, fitted on the training split only."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from shards.errors import bad
from shards.format.indexes import check_index, open_index
from shards.format.info import DatasetInfo, FieldInfo, ShardInfo, write_atomic
from shards.format.npy import read_array
from shards.format.seal import SampleRow
from shards.read.store import crc32_ok

# Genotypes are allele counts 0, 1, 2; -1 is the missing call and says nothing about the mean.
MISSING_CODE = {"snp": -1}
# All that a field of codes may hold: copies of one allele, or a missing call.
CODES = {"snp": (-1, 0, 1, 2)}


def odd_codes(name: str, x_D: np.ndarray) -> str | None:
    """What is wrong with a vector of codes, NaN apart; None where all is well, or where the field holds no codes."""
    known = CODES.get(name)
    if known is None or not (odd_D := np.isfinite(x_D) & ~np.isin(x_D, known)).any():
        return None
    first = ", ".join(f"{x_D[i]:g} in column {i}" for i in np.flatnonzero(odd_D)[:3])
    return f"{int(odd_D.sum())} of {len(x_D)} values are none of {', '.join(map(str, known))} ({first})"


def vector_fields(fields: Mapping[str, FieldInfo]) -> list[str]:
    """Fields that hold one vector of fixed width a sample."""
    return [n for n, f in fields.items() if f.kind == "array" and f.shape and len(f.shape) == 1 and f.shape[0]]


def vectors(folder: Path, shards: Sequence[ShardInfo], field: str, keys: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(key, vector) of a field for the samples in `keys`, in shard order; reads nothing else."""
    for shard in shards:
        path = folder / shard.name
        index = open_index(path, shard.index_sha256)
        with open(path, "rb") as f:
            check_index(index, path, shard, f.fileno())
            for row in index[index["field"] == field.encode()]:
                if (key := row["key"].decode()) in keys:
                    f.seek(int(row["offset"]))
                    data = f.read(int(row["size"]))
                    if not crc32_ok(data, int(row["crc32"])):
                        what = "its bytes changed since packing (checksum mismatch)"
                        raise bad(what, f"{shard.name}: {key}.{field}.npy", "copy the shard again from its source")
                    yield key, read_array(data)


class Moments:
    """Running mean and variance per feature (Chan et al. 1983 for one sample at a time = Welford), in float64, NaN left out."""

    def __init__(self, width: int):
        self.count_D = np.zeros(width)
        self.mean_D = np.zeros(width)
        self.m2_D = np.zeros(width)

    def add(self, x_D: np.ndarray) -> None:
        known_D = np.isfinite(x_D)
        self.count_D += known_D
        delta_D = np.where(known_D, x_D - self.mean_D, 0.0)
        self.mean_D += delta_D / np.maximum(self.count_D, 1)
        self.m2_D += delta_D * np.where(known_D, x_D - self.mean_D, 0.0)

    def merge(self, other: Moments) -> None:
        """Takes in the moments of other samples (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count_D = self.count_D + other.count_D
        delta_D, share_D = other.mean_D - self.mean_D, other.count_D / np.maximum(count_D, 1)
        self.mean_D += delta_D * share_D
        self.m2_D += other.m2_D + delta_D**2 * self.count_D * share_D
        self.count_D = count_D

    @property
    def std_D(self) -> np.ndarray:  # noqa: N802
        """Population standard deviation; 0 for a constant feature."""
        std_D = np.sqrt(self.m2_D / np.maximum(self.count_D, 1))
        # Rounding leaves a constant feature with a few ulp of spread; that is no signal to divide by.
        return np.where(std_D <= 1e-7 * np.maximum(np.abs(self.mean_D), 1e-30), 0.0, std_D)


def fit(folder: Path, info: DatasetInfo, rows: Sequence[SampleRow]) -> dict[str, Moments]:
    """Moments of every vector field over the training samples of `rows`."""
    fields, fitted = vector_fields(info.fields), {}
    train = {r.sample for r in rows if r.split == "train"} if fields else set()
    for name in fields:
        shape = info.fields[name].shape
        assert shape
        assert shape[0]
        moments, code = Moments(shape[0]), MISSING_CODE.get(name)
        for _, x_D in vectors(folder, info.shards, name, train):
            moments.add(np.where(x_D == code, np.nan, x_D) if code is not None else x_D.astype(np.float64))
        fitted[name] = moments
    return fitted


def arrays_of(fitted: Mapping[str, Moments]) -> dict[str, np.ndarray]:
    """What stats.npz holds: FIELD.mean, FIELD.std (float32; a constant feature has std 1, so that it becomes 0 and not NaN)."""
    arrays = {}
    for name, moments in fitted.items():
        std_D = moments.std_D
        arrays[f"{name}.mean"] = moments.mean_D.astype(np.float32)
        arrays[f"{name}.std"] = np.where(std_D == 0, 1.0, std_D).astype(np.float32)
        arrays[f"{name}.constant"] = std_D == 0
    return arrays


def write_stats(folder: Path, info: DatasetInfo, rows: Sequence[SampleRow]) -> None:
    """stats.npz of the training samples of `rows`; none where no field is a vector."""
    arrays = arrays_of(fit(folder, info, rows))
    path = folder / "stats.npz"
    if not arrays:
        path.unlink(missing_ok=True)
        return
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())

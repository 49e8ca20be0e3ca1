"""A data set opened for reading: any sample, any field, any rows, by offset."""

from __future__ import annotations

import hashlib
import io
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.format.images import Reading, reading_of
from shards.format.indexes import broken, faults, open_index
from shards.format.info import DatasetInfo, load_info, sha256_of
from shards.format.tables import Names, SplitTable, read_labels, read_splits, strings
from shards.read.opened import OpenedSet, Stamp
from shards.read.record import ShardRecord, absent
from shards.read.remote import is_url
from shards.read.store import Shard, Shelf
from shards.read.subset import Subset, choose

if TYPE_CHECKING:
    from shards.read.cache import Cache, CachedSet

OPEN_SHARDS = 128


class Dataset:
    """A folder of shards. Opening reads dataset.json and checks hashes; shards are opened when a sample is first read.

    Safe to read from several threads. `bytes_read` counts what was read from shards.
    """

    def __init__(
        self,
        path: Path,
        info: DatasetInfo,
        open_shards: int = OPEN_SHARDS,
        cached: CachedSet | None = None,
        began: Stamp | None = None,
    ):
        self.path = path
        self.info = info
        self.bytes_read = 0
        # Whether large JPEGs are decoded whole where less would do (shards/read/picture.py).
        self.exact_decode = True
        self._readings: dict[str, Reading] = {}
        self._shelf = Shelf(open_shards)
        self._opened = OpenedSet(path, info, began)
        self._cached = cached
        if cached is not None:
            cached.cache.watch(self._shelf)
        self._count_lock = threading.Lock()
        self.starts = np.concatenate([[0], np.cumsum([s.samples for s in info.shards], dtype=np.int64)])
        self._starts: list[int] = self.starts.tolist()

    @classmethod
    def open(cls, folder: str | Path, open_shards: int = OPEN_SHARDS, cache: Cache | None = None) -> Dataset:
        """Opens a data set and checks that its side files are those that dataset.json was sealed with.

        An address (s3://, gs://, https://), or with `cache` any folder, is read through a local cache of shards; `path` is its
        place there.

        Raises:
            DataError: no data set, an edited dataset.json, a side file missing or changed, counts that do not add up.
        """
        cached = None
        if cache is not None or is_url(folder):
            from shards.read.cache import Cache

            cached = (cache or Cache.at()).open(str(folder))
        path = Path(folder) if cached is None else cached.folder
        began = OpenedSet.stamp_of(path)
        info = load_info(path)
        problems = list(_side_files(path, info))
        total = sum(s.samples for s in info.shards)
        if total != info.samples or not info.samples:
            problems.append(
                Problem(f"{info.samples} samples, its shards hold {total}", str(path / "dataset.json"), _REINDEX)
            )
        if problems:
            raise DataError(problems)
        return cls(path, info, open_shards, cached, began)

    # ------------------------------------------------------------------------------------------------------ what is in it

    def __len__(self) -> int:
        return self.info.samples

    @property
    def cache(self) -> Cache | None:
        """What its shards are kept in, if they are far away."""
        return self._cached.cache if self._cached is not None else None

    @property
    def fingerprint(self) -> str:
        return self.info.fingerprint

    @cached_property
    def _splits(self) -> SplitTable:
        return read_splits(self.path / "splits.csv", self.info)

    @cached_property
    def label_values(self) -> dict[str, np.ndarray]:
        """int64 codes (-1 missing) or float64 numbers (NaN missing) of every sample, by label."""
        return read_labels(self.path / "labels.csv", self.info, self.keys) if self.info.labels else {}

    @property
    def keys(self) -> Names:
        """Key of every sample, in global order."""
        return self._splits.keys

    @property
    def patient_codes(self) -> np.ndarray:
        """Patient of every sample, as a code int64 [n]."""
        return self._splits.patient_codes

    @property
    def split_codes(self) -> np.ndarray:
        """Split of every sample, as its number in `format.SPLITS`, -1 for none, int64 [n]."""
        return self._splits.split_codes

    def indexes(self) -> Iterator[np.ndarray]:
        """The index of each shard, without its shard; far ones are fetched where they are not here.

        Raises:
            DataError: one is missing, or not the sealed one.
            BrokenSeal: one cannot be true, or is of a data set that took the place of this one.
        """
        for shard in self.info.shards:
            if self._cached is not None:
                self._cached.index(shard)
            index = open_index(self.path / shard.name, shard.index_sha256)
            self._opened.check()
            if found := list(faults(index, shard.samples, shard.bytes)):
                raise broken(found, self.path / shard.name)
            yield index

    def keys_of(self, indices: np.ndarray) -> list[str]:
        return self.keys.take(indices)

    def patients_of(self, indices: np.ndarray) -> list[str]:
        return self._splits.patient_names.take(self.patient_codes[indices])

    @cached_property
    def patients(self) -> Names:
        """Patient of every sample, in global order."""
        return Names(strings(self._splits.patient_names.take(self.patient_codes)))

    def subset(self, split: str | None = None) -> Subset:
        """The samples of a split (None: all), as an order needs them.

        Raises:
            DataError: no such split, or an empty one.
        """
        return choose(self, split, self._splits.split_codes)

    def vocabulary(self, field: str) -> tuple[str, ...]:
        """Feature names of a field, in column order.

        Raises:
            DataError: no vocabulary, or not the one the data set was sealed with.
        """
        known = self.info.fields.get(field)
        if known is None or known.vocab is None:
            raise bad(f"field '{field}' has no vocabulary", self.path, "pack it from a table with feature names")
        path = self.path / known.vocab
        if not path.resolve().is_relative_to(self.path.resolve()) or not path.is_file():
            raise bad("the vocabulary is missing", path, "restore the file or pack again")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != known.vocab_sha256:
            raise bad(
                "the vocabulary is not the one the data set was sealed with (hash mismatch)",
                path,
                "restore the file or pack again",
            )
        return tuple(data.decode("utf-8-sig").splitlines())

    def reading(self, name: str) -> Reading:
        """How the images of a field become pixels.

        Raises:
            DataError: dataset.json says something of them that means nothing.
        """
        found = self._readings.get(name)
        if found is None:
            known = self.info.fields.get(name)
            place = self.path / "dataset.json"
            found = self._readings[name] = reading_of(name, {} if known is None else known.meaning, place)
        return found

    def stats(self) -> dict[str, np.ndarray]:
        """Arrays of stats.npz: FIELD.mean, FIELD.std, fitted on the training split.

        Raises:
            DataError: no statistics, or not those the data set was sealed with.
        """
        path = self.path / "stats.npz"
        if "stats.npz" not in self.info.files:
            raise bad("the data set has no statistics", path, _FIT)
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != self.info.files["stats.npz"]:
            raise bad(
                "the statistics are not those the data set was sealed with (hash mismatch)",
                path,
                f"restore the file, or {_FIT}",
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    # ----------------------------------------------------------------------------------------------------------- samples

    def __getitem__(self, i: int) -> ShardRecord:
        return self.numbered(i)

    def numbered(self, i: int, number: int | None = None) -> ShardRecord:
        """Sample i, going by another number where it is read as part of a mix."""
        shard, row = self._place(i)
        return ShardRecord(self, int(i), shard, row, number)

    def __iter__(self) -> Iterator[ShardRecord]:
        return (self[i] for i in range(len(self)))

    def raw(self, i: int, fields: Sequence[str]) -> list[bytes]:
        """Undecoded bytes of some fields, not checked against their checksum: the thinnest way to the data.

        Raises:
            DataError: the sample lacks one of the fields.
        """
        shard, row = self._place(i)
        out, size = [], 0
        for name in fields:
            table = shard.table(name)
            offset = table.offset[row]
            if offset < 0:
                raise absent(ShardRecord(self, i, shard, row), name)
            out.append(shard.pread(table.size[row], offset))
            size += len(out[-1])
        self._count(size)
        return out

    def _place(self, i: int) -> tuple[Shard, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        number = bisect_right(self._starts, i) - 1
        return self._shelf.find(number) or self._open_shard(number), int(i) - self._starts[number]

    def _open_shard(self, number: int) -> Shard:
        info = self.info.shards[number]
        keys = self.keys[self._starts[number] : self._starts[number + 1]]
        held = self._cached.hold(info) if self._cached is not None else None
        return self._shelf.add(number, self.path / info.name, info, keys, held, self._opened)

    def _count(self, size: int) -> None:
        with self._count_lock:
            self.bytes_read += size

    def close(self) -> None:
        """Lets go of all open shards; reading again opens them again."""
        self._shelf.clear()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_FIT = "run `python -m shards seal` on the folder: they are fitted anew, the splits stay as they are"
_REINDEX = "run `python -m shards index` on the folder"


def _side_files(path: Path, info: DatasetInfo) -> Iterator[Problem]:
    """Side files that are missing or changed: the split decides what is trained on, so it is part of the fingerprint."""
    for name in ["splits.csv", *(["labels.csv"] if info.labels else [])]:
        if name not in info.files:
            yield Problem(f"{name} is not sealed in dataset.json", str(path), _REINDEX)
        elif not (path / name).is_file():
            yield Problem("missing", str(path / name), _REINDEX)
        elif sha256_of(path / name) != info.files[name]:
            yield Problem(
                "changed since the data set was sealed (hash mismatch)",
                str(path / name),
                "restore the file, or run `python -m shards split` to seal a new one",
            )

"""Open shards: descriptors and indexes, opened when first read and closed when others need the room."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from isal import isal_zlib

from shards.errors import BrokenSeal, DataError, Problem, bad, typed
from shards.format.indexes import IndexFile, check_index
from shards.format.info import ShardInfo
from shards.read.opened import OpenedSet


class FieldTable:
    """Where one field lies in every sample of a shard: plain lists, as scalar look-ups in arrays cost ten times more."""

    __slots__ = ("crc32", "ext", "offset", "size")

    def __init__(self, index: np.ndarray, field: str, samples: int):
        rows = np.flatnonzero(index["field"] == field.encode())
        at = index["sample"][rows]
        self.offset = _spread(index["offset"][rows], at, samples)
        self.size = _spread(index["size"][rows], at, samples)
        self.crc32 = _spread(index["crc32"][rows], at, samples)
        exts = index["ext"][rows]
        kinds = np.unique(exts)
        self.ext: str | list[str] = kinds[0].decode() if len(kinds) == 1 else _exts(exts, at, samples)

    def ext_of(self, row: int) -> str:
        return self.ext if isinstance(self.ext, str) else self.ext[row]


def _firsts(index: np.ndarray) -> np.ndarray:
    """The first row of each sample."""
    return np.flatnonzero(np.diff(index["sample"], prepend=np.uint32(2**32 - 1)))


def _spread(values: np.ndarray, at: np.ndarray, samples: int) -> list[int]:
    """One value a sample; -1 where the sample lacks the field."""
    full = np.full(samples, -1, np.int64)
    full[at] = values
    return full.tolist()


def _exts(exts: np.ndarray, at: np.ndarray, samples: int) -> list[str]:
    full = np.full(samples, b"", "S4")
    full[at] = exts
    return [e.decode() for e in full]


class Shard:
    """One open shard. Reads are `pread`s, so threads share the descriptor; it is closed when the last holder lets go."""

    def __init__(
        self, path: Path, info: ShardInfo, keys: list[str], held: int | None = None, opened: OpenedSet | None = None
    ):
        self.name = path.name
        self.used = True
        self._fd = -1 if held is None else held
        self._tables: dict[str, FieldTable] = {}
        self.samples = info.samples
        self.keys = keys
        fix = f"the shard was changed or cut after packing: copy it again, or run `python -m shards index {typed(path.parent)}`"
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if held is None else held
        except OSError as e:
            raise bad(f"cannot be opened ({e.strerror})", path, "restore the shard") from e
        tar = os.fstat(self._fd)
        if tar.st_size != info.bytes:
            raise bad(f"{tar.st_size} bytes, dataset.json says {info.bytes}", path, fix)
        file = IndexFile(path)
        self._index = file.rows()
        if opened is not None and opened.known(info, tar, file.seen):
            return
        file.check_seal(info.index_sha256)
        if opened is not None and held is None:  # a cache fetches by hash
            opened.check_tar(info, tar)
        check_index(self._index, path, info, self._fd)
        if self._index["key"][_firsts(self._index)].tolist() != [k.encode() for k in keys]:
            raise BrokenSeal(Problem("its keys are not those of splits.csv, in order", str(path), fix))
        if opened is not None:
            opened.checked(info, tar, file.seen)

    def table(self, field: str) -> FieldTable:
        """Offsets of a field; made on first use. Two threads may make it at once: both make the same."""
        table = self._tables.get(field)
        if table is None:
            table = self._tables[field] = FieldTable(self._index, field, self.samples)
        return table

    def fields_of(self, row: int) -> tuple[str, ...]:
        """Names of the fields that a sample has."""
        lo, hi = np.searchsorted(self._index["sample"], [row, row + 1])
        return tuple(f.decode() for f in self._index["field"][lo:hi])

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        return data if len(data) == size else self._rest(data, size, offset)

    def _rest(self, data: bytes, size: int, offset: int) -> bytes:
        """The system may return less than was asked (2 GiB at once at most); an end of file here means a cut shard."""
        parts, have = [data], len(data)
        while parts[-1] and have < size:
            parts.append(os.pread(self._fd, size - have, offset + have))
            have += len(parts[-1])
        if have < size:
            raise bad(f"ends {size - have} bytes early", self.name, "the shard was cut while in use: copy it again")
        return b"".join(parts)

    def read_into(self, buffer: np.ndarray, offset: int) -> None:
        """Fills a uint8 buffer from `offset` on."""
        view, have = buffer.data, 0
        while have < len(view):
            got = os.preadv(self._fd, [view[have:]], offset + have)
            if not got:
                raise bad(
                    f"ends {len(view) - have} bytes early", self.name, "the shard was cut while in use: copy it again"
                )
            have += got

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class Shelf:
    """At most `capacity` open shards, by number. Evicts the oldest that was not used since the last look (second chance)."""

    def __init__(self, capacity: int):
        assert capacity > 0
        self.capacity = capacity
        self._open: dict[int, Shard] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def find(self, number: int) -> Shard | None:
        """An open shard, without a lock: the common case of every read."""
        shard = self._open.get(number)
        if shard is not None:
            shard.used = True
        return shard

    def add(
        self,
        number: int,
        path: Path,
        info: ShardInfo,
        keys: list[str],
        held: int | None = None,
        opened: OpenedSet | None = None,
    ) -> Shard:
        """The shard, opened unless another thread was faster; `held`: its descriptor, where a cache keeps it.

        Raises:
            DataError: it cannot be used.
            BrokenSeal: it is not, or no longer, a shard of the data set that was opened.
        """
        with self._lock:
            shard = self._open.get(number)
            if shard is None:
                while len(self._open) >= self.capacity:
                    self._evict()
                shard = self._open[number] = self._opened(path, info, keys, held, opened)
            elif held is not None:
                os.close(held)
            return shard

    @staticmethod
    def _opened(path: Path, info: ShardInfo, keys: list[str], held: int | None, opened: OpenedSet | None) -> Shard:
        """A shard that was still that of its data set after it was opened: by its name a new set may have been reached."""
        try:
            shard = Shard(path, info, keys, held, opened)
        except DataError:
            if opened is not None:
                opened.check()  # says what is behind it, if it is that
            raise
        if opened is not None:
            opened.check()
        return shard

    def let_go(self) -> bool:
        """Closes the oldest shard that was not used since the last look, or else the oldest; False when there is none."""
        with self._lock:
            count = len(self._open)
            while self._open and len(self._open) == count:
                self._evict()
            return count > 0

    def _evict(self) -> None:
        number = next(iter(self._open))
        shard = self._open.pop(number)
        if shard.used:
            shard.used = False
            self._open[number] = shard

    def clear(self) -> None:
        with self._lock:
            self._open.clear()


def crc32_ok(data: bytes | np.ndarray, crc32: int) -> bool:
    # The CRC-32 of zlib by the processor's own instructions: a tenth of its time.
    return isal_zlib.crc32(data) == crc32

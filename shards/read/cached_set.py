"""A data set at an address as the cache has it: shards fetched whole, checked against dataset.json, held while they are read."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from shards.errors import DataError, Problem, bad
from shards.format.info import ShardInfo, index_path, info_of, remove_strays, sha256_of, write_atomic
from shards.read.remote import Remote, inside

if TYPE_CHECKING:
    from shards.read.cache import Cache


T = TypeVar("T")
CHUNK = 16 << 20
LOOK_EVERY = 0.2


class CachedSet:
    """A far data set, opened: `folder` is its place in the cache."""

    def __init__(self, cache: Cache, remote: Remote):
        self.cache, self.remote = cache, remote
        text = remote.whole("dataset.json")
        self.info = info_of(text, remote.where("dataset.json"))
        self._guard(lambda: self._place(text))
        self._check()
        self._guard(self._side_files)

    def _place(self, text: bytes) -> None:
        """The folder is named by what the address holds now: a data set that was sealed anew gets another."""
        address = hashlib.sha256(self.remote.url.encode()).hexdigest()[:8]
        name = re.sub(r"[^\w\-]", "_", self.remote.url.rsplit("/", 1)[-1])[:40]
        seal = hashlib.sha256(text).hexdigest()[:12]
        self.folder = self.cache.folder / f"{name}-{address}-{seal}"
        self.folder.mkdir(exist_ok=True)
        remove_strays(self.folder)
        place = self.folder / "dataset.json"
        if not place.is_file() or place.read_bytes() != text:
            write_atomic(self.folder / "address", self.remote.url.encode() + b"\n")
            write_atomic(place, text)

    def _check(self) -> None:
        info = self.info
        vocabularies = [f.vocab for f in info.fields.values() if f.vocab]
        names = [s.name for s in info.shards] + list(info.files) + vocabularies
        problems = [
            Problem(f"the name '{n}' leaves the data set", self.remote.where("dataset.json"), "do not trust it")
            for n in names
            if not inside(n)
        ]
        largest = max((s.bytes for s in info.shards), default=0)
        if largest > self.cache.limit:
            what = f"{self.cache.limit / 1e9:.3g} GB, the largest shard of {self.remote} has {largest / 1e9:.3g}"
            fix = f"raise data.cache_gb to {largest / 1e9:.3g} or more: that of a few shards"
            problems.append(Problem(what, f"data.cache={self.cache.folder}", fix))
        if problems:
            raise DataError(problems)

    def _side_files(self) -> None:
        wanted: dict[str, str | None] = dict(self.info.files)
        wanted |= {f.vocab: f.vocab_sha256 for f in self.info.fields.values() if f.vocab}
        for name, sha256 in wanted.items():
            path = self.folder / name
            if path.is_file() and sha256 in (None, sha256_of(path)):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, self._whole(name, sha256))

    def _whole(self, name: str, sha256: str | None, start: int | None = None) -> bytes:
        """A small file as it was sealed; fetched once more where it came with another hash."""
        for again in (True, False):
            data = self.remote.whole(name, start)
            if sha256 in (None, hashlib.sha256(data).hexdigest()):
                return data
            if not again:
                raise self._damaged(name)
        raise AssertionError

    # -------------------------------------------------------------------------------------------------------- shards

    def hold(self, shard: ShardInfo) -> int:
        """An open descriptor of the shard, locked against eviction until it is closed; fetched first where it is not here.

        Raises:
            DataError: it cannot be had: not there, damaged twice, connection lost, no room.
        """
        return self._guard(lambda: self._hold(shard))

    def index(self, shard: ShardInfo) -> None:
        """Brings the index of a shard here, without the shard."""
        path = self.folder / shard.name
        self._guard(lambda: None if self._has_index(shard) else self._index(path, shard))

    def _has_index(self, shard: ShardInfo) -> bool:
        """Whether the index is here as it was sealed; one that was damaged here is fetched again."""
        path = index_path(self.folder / shard.name)
        if not path.exists():
            return False
        if shard.index_sha256 in (None, sha256_of(path)):
            return True
        path.unlink(missing_ok=True)
        return False

    def _hold(self, shard: ShardInfo) -> int:
        path = self.folder / shard.name
        while True:
            fd = self._held(path, shard)
            if fd is not None:
                return fd
            self.folder.mkdir(exist_ok=True)
            lock = os.open(path.with_name(f".{shard.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                # Not waiting inside flock: a thread that does could not be ended.
                while not try_lock(lock):
                    time.sleep(LOOK_EVERY)
                fd = self._held(path, shard)  # another may have fetched it meanwhile
                if fd is not None:
                    return fd
                self._fetch(path, shard)
            finally:
                os.close(lock)

    def _held(self, path: Path, shard: ShardInfo) -> int | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)  # exclusive ones are held only for the moment of an eviction
            here = os.fstat(fd)
            if here.st_nlink and here.st_size == shard.bytes and self._has_index(shard):
                with contextlib.suppress(PermissionError):  # another user's
                    os.utime(fd)
                return fd
            if here.st_nlink and here.st_size != shard.bytes:
                path.unlink(missing_ok=True)  # cut or grown here: fetched again
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _fetch(self, path: Path, shard: ShardInfo) -> None:
        if path.exists():  # evicted halfway: only its index is gone
            self._index(path, shard)
            return
        part = path.with_name(f".{shard.name}.{shard.bytes}.part")
        for again in (True, False):
            self.cache.reserve(part, shard.bytes)
            if self._download(part, shard) == shard.sha256:
                self._index(path, shard)
                self.cache.publish(part, path)
                return
            part.unlink(missing_ok=True)
            if not again:
                raise self._damaged(shard.name)

    def _download(self, part: Path, shard: ShardInfo) -> str:
        """Goes on with what is there; returns the hash of the whole."""
        digest = hashlib.sha256()
        with open(part, "r+b") as f:
            while data := f.read(CHUNK):
                digest.update(data)
            have = f.tell()
            while have < shard.bytes:
                data = self.remote.range(shard.name, have, min(have + CHUNK, shard.bytes))
                f.write(data)
                f.flush()
                digest.update(data)
                have += len(data)
            os.fsync(f.fileno())
        return digest.hexdigest()

    def _index(self, path: Path, shard: ShardInfo) -> None:
        target = index_path(path)
        name = str(target.relative_to(self.folder))
        sealed = shard.index_sha256
        write_atomic(target, self._whole(name, sealed, start=0), again=sealed is not None)

    def _damaged(self, name: str) -> DataError:
        fix = "upload the file again as it was sealed (python -m shards lint on the original finds what differs)"
        return bad("came twice with another hash than dataset.json says", self.remote.where(name), fix)

    def _guard(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except OSError as e:
            raise self.cache._unwritable(e) from e


def try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False

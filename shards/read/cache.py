"""Whole shards of far data sets in a local folder: fetched on first use, bounded in bytes, the longest unused goes first.

    CACHE/.lock                     held while room is made; holds how many bytes are taken, at most
    CACHE/.want                     touched by who finds no room: others let go of what they do not use
    CACHE/NAME-ADDRESS-FINGERPRINT/ one data set as it was sealed; another seal is another folder
        address                     where it comes from, for people
        dataset.json splits.csv ... side files, whole, checked against their hashes
        shard-000000.tar            read like any other shard; a shared lock on it says that it is in use
        .shard-000000.tar.BYTES.part    on its way: the next process goes on with it; it counts with all its BYTES
        .shard-000000.tar.lock      held by who fetches it

Several threads, processes and jobs of one machine may share a folder; it should be on a disk of that machine. All locks are the
system's (flock) and go with their process, so a killed job leaves none. The bound is on shards; side files come on top.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shards.errors import DataError, bad
from shards.format.info import index_path
from shards.read.cached_set import LOOK_EVERY, CachedSet
from shards.read.remote import Remote

PATIENCE = 120.0
"""Seconds that others have for letting go of shards when there is no room."""
DEFAULT_GB = 50.0


class Holder(Protocol):
    """Who keeps shards open."""

    def let_go(self) -> bool:
        """Closes one that is not in use; False when none is left."""


@dataclass(frozen=True)
class Entry:
    """A file that takes room: a whole shard, or one on its way (with its whole size)."""

    path: Path
    bytes: int
    used: float
    part: bool


class Cache:
    """A folder for shards, at most `limit` bytes of them.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(self, folder: str | Path, limit: int, patience: float = PATIENCE):
        self.folder, self.limit, self.patience = Path(folder).expanduser().absolute(), limit, patience
        self._holders: weakref.WeakSet[Any] = weakref.WeakSet()
        self._wanted = 0.0
        self._looked = False
        self._starting = threading.Lock()
        self._lender: threading.Thread | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(self.folder / ".lock"):
                pass
        except OSError as e:
            raise self._unwritable(e) from e

    @classmethod
    def at(cls, folder: str | None = None, gb: float = DEFAULT_GB) -> Cache:
        """`folder`, or where MEDPAIR_CACHE or the user's cache folder is."""
        if folder:
            return cls(folder, int(gb * 1e9))
        base = os.environ.get("MEDPAIR_CACHE") or os.path.join(
            os.environ.get("XDG_CACHE_HOME") or "~/.cache", "medpair"
        )
        return cls(Path(base) / "shards", int(gb * 1e9))

    def open(self, address: str) -> CachedSet:
        """A data set: its side files are here and checked when this returns.

        Raises:
            DataError: what is wrong with the address or its files, or a bound under the largest shard.
        """
        return CachedSet(self, Remote(address))

    def watch(self, holder: Holder) -> None:
        """Asks `holder` for room from now on, also when another process wants it."""
        self._holders.add(holder)
        with self._starting:
            if self._lender is None:
                self._lender = threading.Thread(
                    target=_lend, args=(weakref.ref(self),), name="shard cache", daemon=True
                )
                self._lender.start()

    # ---------------------------------------------------------------------------------------------------------- room

    def entries(self) -> list[Entry]:
        """All that takes room, longest unused first."""
        found = []
        for path in self.folder.glob("*/*.tar*"):
            part = re.fullmatch(r"\..*\.(\d+)\.part", path.name)
            if part or path.suffix == ".tar":
                with contextlib.suppress(FileNotFoundError):
                    seen = path.stat()
                    found.append(Entry(path, int(part.group(1)) if part else seen.st_size, seen.st_mtime, bool(part)))
        return sorted(found, key=lambda e: e.used)

    @property
    def bytes(self) -> int:
        return sum(e.bytes for e in self.entries())

    def reserve(self, part: Path, size: int) -> None:
        """Makes the file `part`, which counts as `size` bytes, once there is room for it.

        Raises:
            DataError: what is in use leaves too little.
        """
        ends = time.monotonic() + self.patience
        while not self._reserve(part, size):
            if any(h.let_go() for h in list(self._holders)):
                continue
            if time.monotonic() > ends:
                raise self._too_small(size)
            (self.folder / ".want").touch()
            time.sleep(LOOK_EVERY)

    def publish(self, part: Path, path: Path) -> None:
        """Gives a whole shard its name: not while another counts what lies here, who would see it under neither."""
        with self._locked(self.folder / ".lock"):
            os.replace(part, path)

    def _reserve(self, part: Path, size: int) -> bool:
        with self._locked(self.folder / ".lock") as lock:
            if part.exists():
                return True
            room = self.limit - self._taken(lock)
            if room < size:
                room = self._make_room(size)
            if room >= size:
                part.touch()
            _keep(lock, self.limit - room + (size if room >= size else 0))
            return room >= size

    def _taken(self, lock: int) -> int:
        """Bytes that may be taken: as all who reserve and evict have kept it, never less than what lies there.

        A look at thousands of small shards for each new one would cost more than fetching it. What is removed otherwise is found out
        by the look that follows once there seems to be no room; the first of a process looks, for what came by other ways.
        """
        if not self._looked:
            self._looked = True
            return self.bytes
        text = os.pread(lock, 32, 0).strip()
        return int(text) if text.isdigit() else self.bytes

    def _make_room(self, size: int) -> int:
        """Evicts what was unused the longest until there is room for `size` bytes; how much there is."""
        entries = self.entries()
        room = self.limit - sum(e.bytes for e in entries)
        for entry in entries:
            if room >= size:
                break
            room += entry.bytes if evict(entry) else 0
        return room

    def _too_small(self, size: int) -> DataError:
        entries = self.entries()
        used = sum(e.bytes for e in entries)
        need = (used + size) / 1e9
        return bad(
            f"{len(entries)} shards in use take {used / 1e9:.3g} GB of {self.limit / 1e9:.3g}, the next needs {size / 1e9:.3g}",
            f"data.cache={self.folder}",
            f"raise data.cache_gb to {need:.3g} or more, run fewer jobs on this machine, or pack smaller shards (--shard-size)",
        )

    def lend(self) -> None:
        """Lets go of a shard where another process has asked for room since the last look."""
        try:
            asked = (self.folder / ".want").stat().st_mtime
        except OSError:
            return
        if asked > self._wanted:
            self._wanted = asked
            for holder in list(self._holders):
                holder.let_go()

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[int]:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def _unwritable(self, e: OSError) -> DataError:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = (
            "free space, lower data.cache_gb, or give another folder"
            if full
            else "give data.cache=FOLDER on a disk of this machine"
        )
        return bad(f"cannot be written ({e.strerror})", f"data.cache={self.folder}", fix)


def _keep(lock: int, taken: int) -> None:
    """Of one length, so that it is never half of two numbers."""
    os.pwrite(lock, b"%-32d" % taken, 0)


def _lend(ref: weakref.ref[Cache]) -> None:
    while (cache := ref()) is not None:
        cache.lend()
        del cache
        time.sleep(LOOK_EVERY)


def evict(entry: Entry) -> bool:
    """Removes a shard with its index, or what is left of a download, unless it is in use."""
    name = entry.path.name
    lock = entry.path.with_name(f"{name[: name.index('.tar') + 4]}.lock") if entry.part else entry.path
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        fd = -1
    try:
        if fd >= 0:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        entry.path.unlink(missing_ok=True)
        if not entry.part:
            index_path(entry.path).unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)

"""The files of a data set as they were when it was opened: another set that takes their place is refused, never mixed in.

Open shards are descriptors, which go on reading what they were opened on. What is opened later is compared: dataset.json with the one
that the set was opened with, a shard with what it was when it was first opened (device, inode, size, time of change; where one of
these differs, its SHA-256 decides, so that a file that was put back is no reason to stop).
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from shards.errors import BrokenSeal, DataError, Problem
from shards.format.info import DatasetInfo, ShardInfo, load_info, sha256_of

FIX = "start the run again: it goes on with the data set that it was started on, once that is back, and refuses another"


@dataclass(frozen=True)
class Stamp:
    """Which file this is. Hard links and renames change its time of change alone."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, seen: os.stat_result) -> Stamp:
        return cls(seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


class OpenedSet:
    """What a data set was when it was opened. Safe to use from several threads.

    Args:
        info: dataset.json as it was read, after `began`.
        began: `stamp_of(folder)` from before it was read.
    """

    def __init__(self, folder: Path, info: DatasetInfo, began: Stamp | None):
        self.folder, self.info = folder, info
        self._file, self._since = began, time.time_ns()
        self._shards: dict[str, tuple[Stamp, Stamp]] = {}
        self._lock = threading.Lock()

    @staticmethod
    def stamp_of(folder: Path) -> Stamp | None:
        try:
            return Stamp.of(os.stat(folder / "dataset.json"))
        except OSError:
            return None

    def check(self) -> None:
        """Asked after a shard was opened by name: was it still that of this data set?

        Raises:
            BrokenSeal: the folder holds another data set by now, or none.
        """
        now = self.stamp_of(self.folder)
        if now is not None and now == self._file:
            return
        try:
            found = load_info(self.folder).fingerprint
        except DataError as e:
            raise self._replaced(e.problems[0].what) from e
        if found != self.info.fingerprint:
            raise self._replaced(f"fingerprint {self.info.fingerprint[:12]} when it was opened, {found[:12]} now")
        self._file = now  # the same content, written or linked again

    def _replaced(self, why: str) -> BrokenSeal:
        return BrokenSeal(Problem(f"the data set was replaced while it was being read ({why})", str(self.folder), FIX))

    def known(self, shard: ShardInfo, tar: os.stat_result, index: os.stat_result) -> bool:
        """Whether these two files have been checked before and are still the same."""
        return self._shards.get(shard.name) == (Stamp.of(tar), Stamp.of(index))

    def check_tar(self, shard: ShardInfo, tar: os.stat_result) -> None:
        """Refuses a tar that was replaced since the data set, or the shard itself, was first opened.

        Raises:
            BrokenSeal: it is not the sealed one.
        """
        before = self._shards.get(shard.name)
        same = before[0] == Stamp.of(tar) if before else tar.st_ctime_ns <= self._since
        path = self.folder / shard.name
        if not same and sha256_of(path) != shard.sha256:
            what = "the shard was replaced while the data set was being read (sha256)"
            raise BrokenSeal(Problem(what, str(path), FIX))

    def checked(self, shard: ShardInfo, tar: os.stat_result, index: os.stat_result) -> None:
        self._shards[shard.name] = (Stamp.of(tar), Stamp.of(index))

"""The logs of all ranks as one stream, rank and node in front of each line."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.cluster.record import Record

LOOK_EVERY = 0.5
HEADER = re.compile(r"^=== rank (\d+) of \d+ on (\S+?),")


class RankLog:
    """The file of one rank: complete lines, as they come."""

    def __init__(self, path: Path, rank: int):
        self.path, self.rank, self.node = path, rank, "?"
        self._at, self._rest = 0, ""
        self._start: list[str] = []

    def read(self, last: bool = False) -> Iterator[str]:
        """What has come since; with `last` also what will not be completed any more."""
        with open(self.path, errors="replace") as f:
            f.seek(self._at)
            text = self._rest + f.read()
            self._at = f.tell()
        *lines, self._rest = text.split("\n")
        for line in lines:
            # submitit speaks before the task does, which alone knows the node of this life.
            if line.startswith("submitit INFO"):
                self._start.append(line)
                continue
            found = HEADER.match(line)
            if found:
                self.node = found.group(2)
            yield from self._marked(line)
        if last:
            yield from self._marked(*([self._rest] if self._rest else []))
            self._rest = ""

    def _marked(self, *lines: str) -> Iterator[str]:
        for line in (*self._start, *lines):
            yield f"[rank {self.rank} {self.node}] {line}"
        self._start.clear()


def rank_logs(record: Record) -> list[RankLog]:
    """The ranks' files, by rank; none before the job has started."""
    found = {}
    for path in record.folder.glob(f"{record.job}_*_log.out"):
        rank = path.name.removeprefix(f"{record.job}_").removesuffix("_log.out")
        if rank.isdigit():
            found[int(rank)] = path
    return [RankLog(found[r], r) for r in sorted(found)]


def lines(record: Record) -> Iterator[str]:
    """What has been written so far, rank by rank."""
    for log in rank_logs(record):
        yield from log.read(last=True)


def follow(record: Record, ended: Callable[[], bool], look_every: float = LOOK_EVERY) -> Iterator[str]:
    """Lines of all ranks as they come, until `ended` says that no more will."""
    logs: dict[int, RankLog] = {}
    while True:
        last = ended()  # asked before reading, so that nothing written up to the end is missed
        for log in rank_logs(record):
            logs.setdefault(log.rank, log)
        for rank in sorted(logs):
            yield from logs[rank].read(last)
        if last:
            return
        time.sleep(look_every)

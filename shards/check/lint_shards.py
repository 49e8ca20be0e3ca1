"""Lint's look at shards, by several processes: each tar against its seal and its index, then its members, range by range.

What is found is put together in the order of the members, so it does not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.check.lint_members import MemberCheck, differences
from shards.errors import DataError, Problem
from shards.format import index
from shards.format.indexes import FIX_SEAL, faults, open_index
from shards.format.info import DatasetInfo, ShardInfo, index_path, sha256_of
from shards.format.members import Rule
from shards.jobs import in_order
from shards.terminal import Progress

FIX_COPY = "copy it again from its source, or pack again"
RANGE_BYTES = 8 << 20
RANGE_MEMBERS = 4096


@dataclass
class Frame:
    """A shard as a whole: what is wrong with it, whether its bytes are others than were sealed, the index to read it by.

    Members are looked up in the saved index, so that one bad member does not hide the others; `built` where that cannot be used.
    """

    problems: list[Problem] = field(default_factory=list)
    named: list[Problem] = field(default_factory=list)
    changed_outside: bool = False
    """Other bytes in the same size: where no member is found to differ, the change lies outside of them."""
    saved: bool = False
    built: np.ndarray | None = None

    @property
    def readable(self) -> bool:
        return self.saved or self.built is not None


class Framer:
    """Looks at whole shards."""

    def __init__(self, folder: Path, rule: Rule):
        self.folder, self.rule = folder, rule

    def __call__(self, shard: ShardInfo) -> Frame:
        path, frame = self.folder / shard.name, Frame()
        if not path.is_file():
            frame.problems.append(Problem("missing", str(path), FIX_COPY))
            return frame
        size = path.stat().st_size
        saved = saved_index(path, shard, frame.problems)
        if size < shard.bytes:
            frame.problems.append(Problem(f"truncated: {size} of {shard.bytes} bytes", str(path), FIX_COPY))
        elif size > shard.bytes:
            frame.problems.append(Problem(f"{size - shard.bytes} bytes more than were sealed", str(path), FIX_COPY))
        changed = sha256_of(path) != shard.sha256
        try:
            built = index.build(path, self.rule)
        except DataError as e:
            built, frame.problems = None, frame.problems + e.problems
        if saved is not None and built is not None:
            # Where the tar is the sealed one, a checksum that differs is the index's fault.
            frame.named += differences(shard.name, saved, built, checksums=not changed)
        frame.saved = saved is not None and not (frame.named and not changed)
        frame.built = None if frame.saved else built
        frame.changed_outside = changed and size == shard.bytes and built is not None
        return frame


def saved_index(path: Path, shard: ShardInfo, problems: list[Problem]) -> np.ndarray | None:
    """The index beside a shard, or None where it cannot be used; why goes to `problems`."""
    try:
        saved = open_index(path, shard.index_sha256)
    except DataError as e:
        problems += e.problems
        return None
    found = list(faults(saved, shard.samples, shard.bytes))
    problems += [Problem(f"the index does not describe the shard: {f}", str(index_path(path)), FIX_SEAL) for f in found]
    return None if found else saved


@dataclass(frozen=True)
class Range:
    """Members `first` to `stop` of a shard's index, whole samples of it."""

    shard: int
    first: int
    stop: int


class Reading:
    """Looks at members; each range by a check of its own."""

    def __init__(self, folder: Path, check: MemberCheck, frames: Sequence[Frame]):
        self.folder, self.check, self.frames = folder, check, frames

    def __call__(self, place: Range) -> tuple[MemberCheck, list[Problem]]:
        check = MemberCheck(self.check.info, self.check.rows)
        members = self.members(place.shard)[place.first : place.stop]
        check.rows.begin(sum(s.samples for s in check.info.shards[: place.shard]) + int(members["sample"][0]))
        return check, check.shard(self.folder / check.info.shards[place.shard].name, members)

    def members(self, number: int) -> np.ndarray:
        built = self.frames[number].built
        if built is not None:
            return built
        shard = self.check.info.shards[number]
        return open_index(self.folder / shard.name, shard.index_sha256)

    def ranges(self) -> Iterator[Range]:
        for number, frame in enumerate(self.frames):
            if frame.readable:
                yield from (Range(number, a, b) for a, b in cut(self.members(number)))


def cut(members: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, stop) of ranges of an index, none of which divides a sample, by their number and their bytes."""
    first, total = 0, 0
    begins = np.flatnonzero(members["key"][1:] != members["key"][:-1]) + 1
    sums = np.concatenate([[0], np.cumsum(members["size"].astype(np.float64))])
    for at in begins.tolist():
        total = sums[at] - sums[first]
        if total >= RANGE_BYTES or at - first >= RANGE_MEMBERS:
            yield first, at
            first = at
    if first < len(members):
        yield first, len(members)


def look_at_shards(folder: Path, info: DatasetInfo, check: MemberCheck, rule: Rule, jobs: int) -> list[Problem]:
    """Problems of all shards and their members; `check` gets what was seen of them."""
    with closing(in_order(Framer(folder, rule), info.shards, jobs)) as framed:
        frames = list(framed)
    reading, found = Reading(folder, check, frames), [list(f.named) for f in frames]
    places = [*reading.ranges()]
    with Progress("linted", info.samples, "samples") as progress, closing(in_order(reading, places, jobs)) as results:
        for place, (part, problems) in zip(places, results, strict=True):
            found[place.shard] += problems
            check.merge(part)
            progress.reached(len(check.keys))
    check.unread += sum(not f.readable for f in frames)
    return [p for n, frame in enumerate(frames) for p in _told(folder / info.shards[n].name, frame, found[n])]


def _told(path: Path, frame: Frame, named: list[Problem]) -> list[Problem]:
    outside = []
    if frame.changed_outside and not named:
        what = "bytes changed since it was sealed (sha256), outside of all members"
        outside = [Problem(what, str(path), FIX_COPY)]
    return [*frame.problems, *outside, *named]

"""The index of a shard: where the bytes of every member lie, so that reading is by offset and never by walking a tar."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

from shards.errors import DataError, Problem
from shards.format.archive import walk
from shards.format.info import KINDS, index_dtype, index_path, write_atomic
from shards.format.members import Name, Rule, cut
from shards.tables.unknown import is_unknown

_CHUNK = 1 << 20
MAX_VALUE = 16 << 20  # bytes of a member that names a patient or holds labels
_ADJACENT = "give every sample a key of its own and keep its members together (tar --sort=name)"


# sample, key, field, ext, offset, size, crc32
Row = tuple[int, str, str, str, int, int, int]


@dataclass
class Scan:
    """What a walk over a tar found.

    rows: one a field, in tar order. values: (key, member, where, bytes) of the members that hold patients or labels.
    samples: key -> the sample's name with its folders. passed: what was passed over or left out, counted.
    """

    shard: Path
    rows: list[Row] = field(default_factory=list)
    values: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    samples: dict[str, str] = field(default_factory=dict)
    passed: Counter[str] = field(default_factory=Counter)
    met: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    _nothing: dict[str, tuple[str, int]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _last: str = ""

    def take(self, f: BinaryIO, name: str, offset: int, size: int, rule: Rule) -> None:
        """One member."""
        where, found = f"{self.shard.name}: {name!r}", cut(name)
        if isinstance(found, Problem):
            self.problems.append(Problem(found.what, where, found.fix))
            return
        found = replace(found, key=rule.key_of(found, self.shard.stem))
        self.met.add(found.member)
        if found.member in rule.skip:
            self.passed[f"members {found.member} (--skip)"] += 1
            return
        place, values = rule.field_of(found.member), rule.values_of(found.member)
        if place is None and not values:
            first, count = self._nothing.get(found.member, (name, 0))
            self._nothing[found.member] = (first, count + 1)
            return
        self._key(found, where)
        self._once(found.member if place is None else place[0], found.key, where)
        if values:
            self._read(f, found, where, offset, size)
        if place is not None and not self._says_nothing(f, place[1], offset, size, rule):
            crc = _crc32(f.fileno(), offset, size)
            self.rows.append((0, found.key, *place, offset, size, crc))

    def _key(self, found: Name, where: str) -> None:
        """Notes the sample that a member belongs to; its members must lie together."""
        if found.key != self._last:
            self._seen = set()
            if found.key in self.samples:
                self.problems.append(Problem(f"key '{found.key}' comes back after other samples", where, _ADJACENT))
        self.samples.setdefault(found.key, found.sample)
        if self.samples[found.key] != found.sample:
            what = f"samples '{self.samples[found.key]}' and '{found.sample}' would both have the key '{found.key}'"
            self.problems.append(Problem(what, where, "rename the folder or the files of one of them"))
        self._last = found.key

    def _once(self, what: str, key: str, where: str) -> None:
        if what in self._seen:
            self.problems.append(Problem(f"sample '{key}' has field '{what}' twice", where, "keep one of them"))
        self._seen.add(what)

    def _read(self, f: BinaryIO, found: Name, where: str, offset: int, size: int) -> None:
        if size > MAX_VALUE:
            self.problems.append(Problem(f"{size} bytes for a patient or a label", where, "map the right member"))
        else:
            self.values.append((found.key, found.member, where, os.pread(f.fileno(), size, offset)))

    def _says_nothing(self, f: BinaryIO, ext: str, offset: int, size: int, rule: Rule) -> bool:
        """Texts that say that there is none, in other people's tars: no member at all, as a report that is missing."""
        if rule.adopted is None or KINDS[ext] != "text" or size > 64:
            return False
        text = os.pread(f.fileno(), size, offset).decode("utf-8-sig", "replace")
        if not is_unknown(text):
            return False
        self.passed["texts that are empty or say 'not known'"] += 1
        return True

    def finish(self, rule: Rule) -> None:
        """Numbers the samples, and says what only the whole shard can tell."""
        for member, (first, count) in self._nothing.items():
            what, fix = rule.why_not(member)
            named = f"{count} members '{member}', such as {first!r}" if count > 1 else repr(first)
            self.problems.append(Problem(what, f"{self.shard.name}: {named}", fix))
        with_field = dict.fromkeys(r[1] for r in self.rows)
        if lacking := [k for k in self.samples if k not in with_field]:
            self.passed["samples without any field"] += len(lacking)
        number = {k: i for i, k in enumerate(with_field)}
        self.rows = [(number[r[1]], *r[1:]) for r in self.rows]
        if not self.rows and not self.problems:
            self.problems.append(Problem("no member", self.shard.name, "remove the empty shard and index again"))


def scan(shard: Path, rule: Rule | None = None) -> Scan:
    """Walks a tar once; what is wrong with it is in `problems`.

    Args:
        rule: what its members are, in tars that somebody else made.
    """
    shard, rule = Path(shard), rule or Rule()
    found = Scan(shard)
    with open(shard, "rb") as f:
        for name, offset, size in walk(shard, found.problems, found.passed):
            found.take(f, name, offset, size, rule)
    found.finish(rule)
    return found


def build(shard: Path, rule: Rule | None = None) -> np.ndarray:
    """Walks a tar once and returns its index: one row a member, in tar order, `format.index_dtype`.

    Raises:
        DataError: every problem of the shard at once: truncated or not a plain tar, members that are not regular files or not
            KEY.FIELD.EXT of the allow-list, a member twice, a key whose members are not adjacent.
    """
    found = scan(shard, rule)
    if found.problems:
        raise DataError(found.problems)
    return from_rows(found.rows)


def from_rows(rows: list[Row]) -> np.ndarray:
    """An index from (sample, key, field, ext, offset, size, crc32) of every member."""
    dtype = index_dtype(max(len(r[1]) for r in rows), max(len(r[2]) for r in rows))
    # Keys and fields are ASCII by the format's patterns.
    return np.array([(s, k.encode(), f.encode(), e.encode(), o, n, c) for s, k, f, e, o, n, c in rows], dtype=dtype)


def to_bytes(index: np.ndarray) -> bytes:
    """The file form of an index."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, index, allow_pickle=False)
    return buffer.getvalue()


def save(shard: Path, index: np.ndarray) -> Path:
    """Writes the index beside its shard, atomically."""
    path = index_path(shard)
    write_atomic(path, to_bytes(index))
    return path


def seal_of(index: np.ndarray) -> str:
    """The SHA-256 of the index's file, which `ShardInfo.index_sha256` keeps."""
    return hashlib.sha256(to_bytes(index)).hexdigest()


def _crc32(fd: int, offset: int, size: int) -> int:
    crc, end = 0, offset + size
    while offset < end:
        data = os.pread(fd, min(_CHUNK, end - offset), offset)
        if not data:
            break
        crc = isal_zlib.crc32(data, crc)
        offset += len(data)
    return crc

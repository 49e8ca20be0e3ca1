"""The samples of a manifest, in order: a list where they are few, else blocks in a file without a name, so that memory does not grow.

A block is read when it is asked for. What is done to samples after they were read (labels become classes and numbers, a person gets one
spelling) is done again to each that is read.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast, overload

from shards.format.staging import disk_errors
from shards.pack.reference import Reference, columns_asked

BLOCK = 256
KEPT = 4096
"""Samples up to which a manifest stays in memory."""


@dataclass(slots=True)
class Entry:
    """One sample of a manifest. `where` names its line."""

    where: str
    sample: str
    patient: str
    split: str | None = None
    labels: dict[str, str | float] = field(default_factory=dict)
    fields: dict[str, Reference] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


Change = Callable[[Entry], None]
Plain = tuple[str, str, str | None, tuple[int, int] | None, list["Plain"], bool]
"""A reference on disk."""
Head = tuple[str, str, str, str | None, dict[str, str | float]]
"""An entry on disk without its fields and texts, which stand in a `Body`."""
Body = tuple[list[tuple[str, Plain]], dict[str, str]]


@dataclass(frozen=True)
class Forms:
    """What the entries hold: their fields as (name, extension of the member), texts too; of tables the columns that are named."""

    kinds: frozenset[tuple[str, str]]
    asked: dict[Path, set[str]]

    @property
    def names(self) -> list[str]:
        return sorted({name for name, _ in self.kinds})


class Entries(Sequence[Entry]):
    """Append all, then read: what `settled` gives. An entry that is read is a new one each time; `change` is for changes that last.

    Raises:
        DataError: the folder of temporary files (TMPDIR) is full.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._ends = array("Q", [0])
        self._recent: list[Entry] = []
        self._count = 0
        self._changes: list[Change] = []
        self._held: tuple[int, list[Entry]] = -1, []
        self.forms: Forms | None = None

    def append(self, entry: Entry) -> None:
        self._recent.append(entry)
        self._count += 1
        if len(self._recent) >= (KEPT + BLOCK if self._file is None else BLOCK):
            self._put_away(len(self._recent) // BLOCK * BLOCK)

    def settled(self) -> Sequence[Entry]:
        """All that were appended: a list, or this object, which takes no more."""
        if self._file is None:
            return self._recent
        self._put_away(len(self._recent))
        return self

    def _put_away(self, count: int) -> None:
        """Writes the first `count`, in whole blocks but at the end."""
        with disk_errors(Path(tempfile.gettempdir())):
            self._file = self._file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - gone with this object
            for at in range(0, count, BLOCK):
                some = self._recent[at : min(at + BLOCK, count)]
                # Apart, since most passes ask for no fields and no texts.
                self._put([(e.where, e.sample, e.patient, e.split, e.labels) for e in some])
                self._put([([(n, _plain(r)) for n, r in e.fields.items()], e.texts) for e in some])
        del self._recent[:count]

    def _put(self, rows: list[Head] | list[Body]) -> None:
        assert self._file is not None
        data = pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)
        while data:  # one write need not take all
            data = data[self._file.write(data) :]
        self._ends.append(self._file.tell())

    def _get(self, number: int) -> object:
        assert self._file is not None
        begin, end = self._ends[number], self._ends[number + 1]
        # By its place: processes that were forked share the file's position.
        return pickle.loads(os.pread(self._file.fileno(), end - begin, begin))

    def change(self, by: Change) -> None:
        """Changes every entry, in place, when it is read."""
        self._changes.append(by)
        self._held = -1, []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        for number in range(len(self._ends) // 2):
            yield from self._block(number)

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...
    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        number, within = divmod(range(self._count)[at], BLOCK)
        if self._held[0] != number:
            self._held = number, self._block(number)
        return self._held[1][within]

    def bare(self) -> Iterator[Entry]:
        """All, without their fields and texts, which take most of the time."""
        for number in range(len(self._ends) // 2):
            yield from self._block(number, bare=True)

    def _block(self, number: int, bare: bool = False) -> list[Entry]:
        made = [Entry(*head) for head in cast("list[Head]", self._get(2 * number))]
        bodies = [] if bare else cast("list[Body]", self._get(2 * number + 1))
        for entry, (fields, texts) in zip(made, bodies, strict=not bare):
            entry.fields, entry.texts = {n: _read(r) for n, r in fields}, texts
        for change in self._changes:
            for entry in made:
                change(entry)
        return made


def stored(entries: Iterable[Entry]) -> Sequence[Entry]:
    """The entries, on disk where they are many."""
    kept = Entries()
    for entry in entries:
        kept.append(entry)
    return kept.settled()


def forms_of(entries: Sequence[Entry]) -> Forms:
    """What they hold; of those that lie on disk it is told once."""
    if isinstance(entries, Entries) and entries.forms:
        return entries.forms
    kinds = set[tuple[str, str]]()

    def references() -> Iterator[Reference]:
        for entry in entries:
            kinds.update((name, "txt") for name in entry.texts)
            kinds.update((name, ref.ext) for name, ref in entry.fields.items())
            yield from entry.fields.values()

    asked = columns_asked(references())
    found = Forms(frozenset(kinds), asked)
    if isinstance(entries, Entries):
        entries.forms = found
    return found


def bare(entries: Sequence[Entry]) -> Iterable[Entry]:
    """The entries, for who asks for no field or text of them."""
    return entries.bare() if isinstance(entries, Entries) else entries


def change(entries: Sequence[Entry], by: Change) -> None:
    """Changes every entry in place."""
    if isinstance(entries, Entries):
        entries.change(by)
        return
    for entry in entries:
        by(entry)


def _plain(r: Reference) -> Plain:
    return r.text, str(r.path), r.member, r.rows, [_plain(m) for m in r.more], r.regions


def _read(row: Plain) -> Reference:
    text, path, member, rows, more, regions = row
    return Reference(text, Path(path), member, rows, tuple(map(_read, more)), regions)

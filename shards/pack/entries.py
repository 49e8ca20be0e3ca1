"""The samples of a manifest, in order: a list where they are few, else blocks in a file without a name, so that memory does not grow.

A block is read when it is asked for. What is done to samples after they were read (labels become classes and numbers, a person gets one
spelling) is done again to each that is read.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast, overload

from shards.format.staging import disk_errors
from shards.pack.reference import COLUMN, Reference

_sorted = json.JSONEncoder(sort_keys=True).encode
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


class Forms:
    """What entries hold, told entry by entry."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.kinds = set[tuple[str, str]]()
        """(field, extension of the member), texts too."""
        self._known, self._rows, self._columns = set[tuple[str, str]](), set[Path](), dict[Path, set[str]]()
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        for name in entry.texts:
            self.kinds.add((name, "txt"))
        for name, ref in entry.fields.items():
            if ref.member is None and (name, ref.suffix) in self._known:
                continue
            self.kinds.add((name, ref.ext))
            if ref.is_table and ref.by_column:
                self._columns.setdefault(ref.path, set()).add((ref.member or "").removeprefix(COLUMN))
            elif ref.is_table:
                self._rows.add(ref.path)
            elif ref.member is None and ref.suffix != ".gz":
                self._known.add((name, ref.suffix))

    @property
    def names(self) -> list[str]:
        return sorted({name for name, _ in self.kinds})

    @property
    def asked(self) -> dict[Path, set[str]]:
        """{table: its columns that are named}, of tables of which nothing but columns is."""
        return {path: names for path, names in self._columns.items() if path not in self._rows}


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
        self.forms, self.fieldless = Forms(), array("I")

    def append(self, entry: Entry) -> None:
        self.forms.add(entry)
        if not (entry.fields or entry.texts):
            self.fieldless.append(self._count)
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
            return [self._at(i) for i in range(*at.indices(self._count))]
        return self._at(range(self._count)[at])

    def _at(self, i: int) -> Entry:
        if self._held[0] != i // BLOCK:
            self._held = i // BLOCK, self._block(i // BLOCK)
        return self._held[1][i % BLOCK]

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
    """What they hold."""
    return entries.forms if isinstance(entries, Entries) else Forms(entries)


def fieldless(entries: Sequence[Entry]) -> set[int]:
    """Places of the entries that have no field and no text."""
    if isinstance(entries, Entries):
        return set(entries.fieldless)
    return {i for i, e in enumerate(entries) if not (e.fields or e.texts)}


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


def line_of(entry: Entry) -> bytes:
    """What of an entry decides the bytes of shards."""
    refs = {n: [r.text, str(r.path), r.member, r.rows, len(r.more), r.regions] for n, r in entry.fields.items()}
    said = [entry.sample, entry.patient, entry.labels, refs, entry.texts]
    return _sorted(said).encode() + b"\n"


def _plain(r: Reference) -> Plain:
    return r.text, str(r.path), r.member, r.rows, [_plain(m) for m in r.more], r.regions


def _read(row: Plain) -> Reference:
    text, path, member, rows, more, regions = row
    return Reference(text, Path(path), member, rows, tuple(map(_read, more)), regions)

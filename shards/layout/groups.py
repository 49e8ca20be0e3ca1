"""The samples of a set before they are entries: which rows are of each, and the files that they name. Some ten bytes each."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import overload

import numpy as np

from shards.layout.lines import Line, Lines
from shards.layout.places import Hit, Places
from shards.layout.schema import Cell
from shards.pack.keys import short_key
from shards.tables.columns import Marks

ENDING = re.compile(r"\.(?:jpe?g|png|bmp|tiff?|dcm|dicom)$", re.IGNORECASE)


def cell_of(cell: Cell, line: Line) -> str:
    """The template, or what the groups of its pattern find in it."""
    text = line.fill(cell.value)
    if cell.pattern is None or not text:
        return text
    found = re.search(cell.pattern, text)
    return "_".join(g for g in found.groups() if g) if found else ""


class Group:
    """The rows of one sample; its first is the one that files are looked up by."""

    def __init__(self, groups: Groups, number: int):
        self._groups, self._number = groups, number
        self.line = groups.lines[groups.head(number)]

    @cached_property
    def key(self) -> str:
        name = cell_of(self._groups.sample, self.line)
        return short_key(ENDING.sub("", name), name)

    @property
    def lines(self) -> Sequence[Line]:
        return [self._groups.lines[row] for row in self._groups.rows(self._number)]

    @cached_property
    def hits(self) -> dict[str, Hit]:
        found = {name: places.hit(self._number) for name, places in self._groups.places.items()}
        return {name: hit for name, hit in found.items() if hit is not None}

    def stamp(self) -> list[object]:
        """What its files are made from: cells, and files by size and time."""
        files = {n: [shown, (s := file.stat()).st_size, s.st_mtime_ns] for n, (file, shown) in self.hits.items()}
        return [self.key, files, [line.said() for line in self.lines]]


class Groups(Sequence[Group]):
    """Samples in the order of their first rows."""

    def __init__(self, lines: Lines, rows: Sequence[int], sample: Cell, several: bool):
        self.lines, self.sample = lines, sample
        self.places: dict[str, Places] = {}
        self._kept: Sequence[int] | None = None
        self._rows: Sequence[int] = rows
        self._begins: Sequence[int] | None = None
        self.lost = array("I")
        """Rows that name no sample."""
        marks = Marks()
        for row in rows:
            name = cell_of(sample, lines[row])
            if not name:
                self.lost.append(row)
            if several:
                # By names, not by keys: two names that become one key are two samples, which is refused later.
                marks.append(name)
        if several:
            first_N = marks.first()
            order_N = np.argsort(first_N, kind="stable")
            begins_N = np.flatnonzero(np.append([True], np.diff(first_N[order_N]) != 0))
            self._rows = array("I", np.asarray(rows, np.uint32)[order_N].tobytes())
            self._begins = array("I", np.append(begins_N, len(order_N)).astype(np.uint32).tobytes())

    @property
    def whole(self) -> int:
        """How many there are with those that are left out."""
        return len(self._rows) if self._begins is None else len(self._begins) - 1

    def head(self, number: int) -> int:
        return self._rows[number if self._begins is None else self._begins[number]]

    def rows(self, number: int) -> Sequence[int]:
        if self._begins is None:
            return (self._rows[number],)
        return self._rows[self._begins[number] : self._begins[number + 1]]

    def leave_out_lacking(self) -> Sequence[int]:
        """Leaves the samples out that lack a file; their numbers, those of the first field first."""
        left, lacking = bytearray(self.whole), array("I")
        for places in self.places.values():
            for number in places.lacking():
                if not left[number]:
                    left[number] = True
                    lacking.append(number)
        self._kept = array("I", (i for i in range(self.whole) if not left[i])) if lacking else None
        return lacking

    def lacks(self, number: int) -> str:
        """The file that a sample lacks, of the last field in which it does."""
        return next(name for p in reversed(self.places.values()) if (name := p.lacks(number)) is not None)

    def __len__(self) -> int:
        return self.whole if self._kept is None else len(self._kept)

    @overload
    def __getitem__(self, at: int) -> Group: ...
    @overload
    def __getitem__(self, at: slice) -> list[Group]: ...
    def __getitem__(self, at: int | slice) -> Group | list[Group]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        return Group(self, at if self._kept is None else self._kept[at])

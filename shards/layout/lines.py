"""The rows of a set in columns: what a layout speaks of of each, in some ten bytes a cell, and what is joined to it."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from shards.layout.schema import COLUMN
from shards.tables.column_table import ColumnTable, TableRow
from shards.tables.columns import Column


@lru_cache(maxsize=1024)
def _cut(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Its columns, and the texts before, between and after them."""
    parts = COLUMN.split(template)
    return tuple(parts[1::2]), tuple(parts[::2])


def fill(template: str, cells: Mapping[str, str]) -> str:
    """The template with its columns filled in; '' where one of them is blank."""
    columns, texts = _cut(template)
    if not columns:
        return template
    values = [cells[c] for c in columns]
    if not all(values):
        return ""
    return "".join([t for pair in zip(texts, values, strict=False) for t in pair]) + texts[-1]


class _Cells(Mapping[str, str]):
    """Those of a row, looked up when they are asked for."""

    __slots__ = ("_at", "_columns")

    def __init__(self, columns: Mapping[str, Column], at: int):
        self._columns, self._at = columns, at

    def __getitem__(self, column: str) -> str:
        return self._columns[column][self._at]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class Line:
    """A row with the cells of the tables joined to it."""

    __slots__ = ("_lines", "at", "cells")

    def __init__(self, lines: Lines, at: int):
        self._lines, self.at, self.cells = lines, at, _Cells(lines.columns, at)

    @property
    def where(self) -> str:
        return self._lines.where(self.at)

    def fill(self, template: str) -> str:
        """The template with its columns filled in; '' where one of them is blank."""
        return fill(template, self.cells)

    def more(self, table: str) -> Sequence[TableRow]:
        """The rows of a joined table of which several may be of one."""
        return self._lines.more[table].of(self.at) if table in self._lines.more else ()

    def said(self) -> list[object]:
        """All of its cells, as JSON."""
        more = {name: [dict(row) for row in rows] for name in self._lines.more if (rows := self.more(name))}
        return [dict(self.cells), more]


class Several:
    """The rows of a joined table that are of one row each. `place_N`: the first of them for every line, -1 for none."""

    def __init__(self, table: ColumnTable, first_M: np.ndarray, place_N: np.ndarray):
        order_M = np.argsort(first_M, kind="stable")
        self._table = table
        self._order = array("I", order_M.astype(np.uint32).tobytes())
        begins_N = np.where(place_N < 0, 0, np.searchsorted(first_M[order_M], place_N, "left"))
        ends_N = np.where(place_N < 0, 0, np.searchsorted(first_M[order_M], place_N, "right"))
        self._begins = array("I", begins_N.astype(np.uint32).tobytes())
        self._ends = array("I", ends_N.astype(np.uint32).tobytes())

    def of(self, line: int) -> Sequence[TableRow]:
        return [self._table[i] for i in self._order[self._begins[line] : self._ends[line]]]


class Lines(Sequence[Line]):
    """All rows, in order; what is appended has the same columns, or blanks in theirs."""

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}
        self.more: dict[str, Several] = {}
        self._count = 0
        self.open_ends = list[Path]()
        """Tables of rows whose last line has no end, as of a download that was cut."""
        self._begins, self._wheres = list[int](), list[Callable[[int], str]]()

    def add(self, columns: Mapping[str, Column], count: int, where: Callable[[int], str]) -> None:
        """More rows; `where` names each of them."""
        if not self._count:
            self.columns = dict(columns)
        else:
            for name in dict.fromkeys((*self.columns, *columns)):
                mine = self.columns.setdefault(name, Column.of("", self._count))
                mine.extend(columns.get(name, Column.of("", count)))
        self._begins.append(self._count)
        self._wheres.append(where)
        self._count += count

    def where(self, at: int) -> str:
        i = bisect_right(self._begins, at) - 1
        return self._wheres[i](at - self._begins[i])

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Line: ...
    @overload
    def __getitem__(self, at: slice) -> list[Line]: ...
    def __getitem__(self, at: int | slice) -> Line | list[Line]:
        if isinstance(at, slice):
            return [Line(self, i) for i in range(*at.indices(self._count))]
        return Line(self, range(self._count)[at])

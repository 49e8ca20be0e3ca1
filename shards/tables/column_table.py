"""A table in columns, for tables as long as a set is: the cells that are asked for, and marks of keys and of whole rows."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from shards.errors import DataError, bad
from shards.tables.cells import text_of
from shards.tables.columns import Column, Marks
from shards.tables.keyed import column_problems
from shards.tables.table_file import TableFile, open_table


class TableRow(Mapping[str, str]):
    """A row, looked up when it is asked for."""

    __slots__ = ("_at", "_table")

    def __init__(self, table: ColumnTable, at: int):
        self._table, self._at = table, at

    @property
    def where(self) -> str:
        return self._table.where(self._at)

    def __getitem__(self, column: str) -> str:
        return self._table.columns[column][self._at]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.columns)

    def __len__(self) -> int:
        return len(self._table.columns)


class ColumnTable:
    """`header`: all names; `columns`: the cells that are kept. `keys`: where each row's key stands, of which `first_key` is the first."""

    def __init__(
        self, table: TableFile, kept: Collection[str], key: Sequence[str], given: Collection[str] | None = None
    ):
        self.path, self.header, self.table, self._given = table.path, tuple(table.header), table, given
        self.columns = {c: Column() for c in self.header if c in kept}
        self.key, keys_of = tuple(key), Marks()
        self.first_key: tuple[str, ...] = ("",)
        self._lines, self._rows = array("I"), array("q")
        at = {c: i for i, c in enumerate(self.header)}
        places = [(at[c], column) for c, column in self.columns.items()]
        keys = [at[c] for c in key] if all(c in at for c in key) else []
        for line, cells in table:
            self._lines.append(line)
            if keys:
                texts = [text_of(c).strip() for c in cells]
                keys_of.append(*(mine := tuple(texts[i] for i in keys)))
                # A row without a key names nobody: it is like every other one.
                self._rows.append(hash(tuple(texts)) if all(mine) else 0)
                self.first_key = mine if len(self._lines) == 1 else self.first_key
                for i, column in places:
                    column.append(texts[i])
            else:
                for i, column in places:
                    column.append(text_of(cells[i]).strip())
        self.keys = keys_of.found()

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, at: int) -> TableRow:
        return TableRow(self, at)

    def where(self, at: int) -> str:
        return self.table.place(self._lines[at])

    def differing(self) -> list[tuple[str, str, str]]:
        """Keys on two lines that do not say the same: (key, where first, where another)."""
        if self.keys.different() == len(self.keys):
            return []
        row_N, first_N = np.frombuffer(self._rows, np.int64), self.keys.first()
        other: dict[int, int] = {}
        for i in np.flatnonzero(row_N != row_N[first_N]).tolist():
            other.setdefault(int(first_N[i]), i)
        if not other:
            return []
        named = self._keys_of({self._lines[i] for i in other})
        return [(named[self._lines[i]], self.where(i), self.where(other[i])) for i in sorted(other)]

    def _keys_of(self, lines: Collection[int]) -> dict[int, str]:
        """The keys of some lines, which are read once more."""
        at = [self.header.index(c) for c in self.key]
        again = open_table(self.path, self._given)
        return {line: "/".join(text_of(cells[i]).strip() for i in at) for line, cells in again if line in lines}


def read_columns(
    path: Path,
    needed: Collection[str] = (),
    fix: str = "",
    header: Collection[str] | None = None,
    only: Callable[[str], bool] = lambda column: True,
    key: Sequence[str] = (),
    called: Mapping[str, str] | None = None,
) -> ColumnTable:
    """Reads a table as `keyed.read_rows` does, in columns.

    Args:
        only: whether the cells of a column are kept.
        key: columns by which rows are looked up.
        called: {name in the file: the column that it is}.

    Raises:
        DataError: not a table; columns that are missing or stand twice; lines with another number of cells; no line at all.
    """
    table = open_table(path, header)
    table.header = [(called or {}).get(c, c) for c in table.header]
    read = ColumnTable(table, {c for c in table.header if only(c)}, key, header)
    problems = [*column_problems(table, needed, fix), *table.problems]
    if not len(read) and not problems:
        raise bad("no line below its header", path, "give a table with a line for each of what it is about")
    if problems:
        raise DataError(problems)
    return read

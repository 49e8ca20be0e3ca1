"""Tables that are joined: rows as dictionaries, and rows by a key that may stand once. No joined table is read in another way.

    rows = read_rows(path, needed=("dicom_id", "split"))      # every structural problem of the table at once
    split_of = keyed(rows, "dicom_id", "image")               # {key: Row}; a key on two lines is refused with both
    split_of["02aa804e"]["split"]; split_of["02aa804e"].where

A join by the first column, whatever its name: `keyed(rows, rows.first, "case")`. By a canonical form of an id: give a function of the
row as key; what it answers None to is left out (list it yourself). A row of a Parquet file has texts too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import intern

from shards.errors import DataError, Problem, bad
from shards.tables.cells import text_of
from shards.tables.identity import few
from shards.tables.table_file import TableFile, open_table

SHOWN = 3


class Row(Mapping[str, str]):
    """One line: its cells by column, without surrounding blanks. `line` is counted as in an editor, `where` names it."""

    __slots__ = ("_cells", "line", "where")

    def __init__(self, cells: dict[str, str], line: int, where: str):
        self._cells, self.line, self.where = cells, line, where

    def __getitem__(self, column: str) -> str:
        return self._cells[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


@dataclass(frozen=True)
class Rows:
    """All rows of a table. `columns` are its names in order; `first` is the column that names rows."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    table: TableFile

    @property
    def first(self) -> str:
        """The first column.

        Raises:
            DataError: a Parquet file that does not say which column names its rows.
        """
        return self.table.first_column()

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def read_rows(
    path: Path,
    needed: Collection[str] = (),
    fix: str = "",
    header: Collection[str] | None = None,
    only: Collection[str] | None = None,
) -> Rows:
    """Reads a table that fits in memory.

    Args:
        needed: columns that it must have.
        fix: what to do where it lacks them (default: to give a table that has them).
        header: names of the columns of a file that has no header.
        only: columns whose cells are kept, each text once (mutations have a hundred columns, and a few texts in each).

    Raises:
        DataError: not a table; columns that are missing or stand twice; lines with another number of cells; no line at all.
    """
    table = open_table(path, header)
    if only is None:
        rows = tuple(
            Row(dict(zip(table.header, (text_of(c).strip() for c in cells), strict=True)), line, table.place(line))
            for line, cells in table
        )
    else:
        at = [(i, c) for i, c in enumerate(table.header) if c in only]
        rows = tuple(
            Row({c: intern(text_of(cells[i]).strip()) for i, c in at}, line, table.place(line)) for line, cells in table
        )
    problems = [*column_problems(table, needed, fix), *table.problems]
    if not rows and not problems:
        raise bad("no line below its header", path, "give a table with a line for each of what it is about")
    if problems:
        raise DataError(problems)
    return Rows(path, tuple(table.header), rows, table)


def several(given: Path | Sequence[Path]) -> list[Path]:
    """The tables of an option that takes one or several."""
    return [given] if isinstance(given, Path) else [*given]


def read_together(given: Path | Sequence[Path]) -> tuple[Rows, list[str]]:
    """The rows of several tables, such as one a cohort, with the columns that all of them have; a line on those that are left out.

    Raises:
        DataError: as `read_rows`, of all tables at once; no column that all have.
    """
    tables, problems = [], []
    for path in several(given):
        try:
            tables.append(read_rows(path))
        except DataError as e:
            problems += e.problems
    if problems:
        raise DataError(problems)
    first = tables[0]
    if len(tables) == 1:
        return first, []
    columns = tuple(c for c in first.columns if all(c in t.columns for t in tables))
    if first.first not in columns:
        lacks = next(t for t in tables if first.first not in t.columns)
        raise bad(
            f"no column '{first.first}', which names rows in {first.path.name}", lacks.path, "give tables of one form"
        )
    alone = sorted({c for t in tables for c in t.columns} - {*columns})
    note = (
        [f"{len(alone)} columns that only some of {len(tables)} tables have are not read ({few(alone)})"]
        if alone
        else []
    )
    return replace(first, columns=columns, rows=tuple(row for t in tables for row in t)), note


def column_problems(table: TableFile, needed: Collection[str] = (), fix: str = "") -> list[Problem]:
    """Columns that are missing or stand twice."""
    found = []
    if lacking := [c for c in needed if c not in table.header]:
        has = f"it is {table.form} and has {', '.join(map(repr, table.header[:12]))}{', ...' if len(table.header) > 12 else ''}"
        found.append(
            Problem(f"no column {', '.join(lacking)} ({has})", str(table.path), fix or "give a table that has them")
        )
    if twice := [c for c, n in Counter(table.header).items() if n > 1]:
        names = ", ".join(f"'{c}'" for c in twice[:SHOWN])
        found.append(Problem(f"{len(twice)} columns stand twice: {names}", str(table.path), "keep one of each name"))
    return found


def no_column(lacking: Sequence[str], flag: str, path: Path, header: Sequence[str]) -> Problem:
    """The problem of columns that an option names and a table lacks."""
    names = ", ".join(f"'{c}'" for c in lacking)
    return Problem(f"no column {names} ({flag})", str(path), f"give {flag} one of its columns: {', '.join(header)}")


def keyed(rows: Rows, key: str | Callable[[Row], str | None], what: str) -> dict[str, Row]:
    """The row of each key.

    Args:
        key: a column, or what gives a row's key (None: the row has none and is left out).
        what: what a key names ("image", "case"), for the message.

    Raises:
        DataError: a key on two lines; both are named.
    """
    found: dict[str, Row] = {}
    twice: list[tuple[str, Row, Row]] = []
    for row in rows:
        name = row[key] if isinstance(key, str) else key(row)
        if name is None:
            continue
        if (first := found.setdefault(name, row)) is not row:
            twice.append((name, first, row))
    if twice:
        raise DataError(repeated(rows.path, [(n, a.where, b.where) for n, a, b in twice], what))
    return found


def repeated(path: Path, twice: list[tuple[str, str, str]], what: str) -> Problem:
    """The problem of keys that stand on two lines: (key, where first, where again)."""
    shown = "; ".join(f"'{n}' on {a} and {b}" for n, a, b in twice[:SHOWN])
    more = "; ..." if len(twice) > SHOWN else ""
    text = f"{len(twice)} x a {what} on two lines: {shown}{more}"
    return Problem(text, str(path), f"keep one line of each {what}: which of them counts cannot be told")

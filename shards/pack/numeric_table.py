"""Numeric tables (CSV, TSV, gzipped or not, Parquet): one named vector a row or a column, spooled to disk, never held in memory."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path

import numpy as np

from shards.errors import Problem
from shards.format.staging import disk_errors
from shards.tables.cells import COMMA, COMMA_FIX, has_comma, number, text_of
from shards.tables.table_file import open_table
from shards.tables.unknown import Words

FIX_CELLS = "the table must hold numbers beside its first column; leave a cell empty where a value is unknown"
CELLS = 4096
"""That are made numbers at once; a table of one column would otherwise pay for each row."""
KEPT = 1000  # cells of a column that are no numbers: of a column of words more tell nothing


def _room() -> contextlib.AbstractContextManager[None]:
    """The temporary folder has room for the numbers, or is named."""
    return disk_errors(Path(tempfile.gettempdir()), "set TMPDIR to a folder with room for the numbers of the table")


def _numbers(rows: list[list[str]], text: bool) -> np.ndarray | None:
    """float32 [rows, columns], or None where a cell is no finite number."""
    try:
        with np.errstate(over="ignore"):
            values = np.array(rows, dtype=np.float32)
    except (ValueError, TypeError):
        return None
    # NumPy reads more than a number of a table: 3_3, digits of other scripts, inf.
    plain = not text or all((joined := "".join(cells)).isascii() and "_" not in joined for cells in rows)
    return values if plain and np.isfinite(values).all() else None


class Table:
    """A table of numbers with row names (first column) and column names (header).

    The values lie in an anonymous temporary file as float32 and are read through a memory map, so a table of 11,000 x 60,000 costs
    disk and no memory. Cells that hold no number are NaN; where they should have been numbers is asked by `odd_cells`, since a column
    of words beside the numbers (gene names, notes) does no harm to those who do not read it. `problems`: lines that could not be read.
    only: the columns that will be asked for, if the table has them all, each once: no other is then read (GDC's files have nine).
    """

    def __init__(self, path: Path, unknown: Words | None = None, only: Collection[str] = ()):
        self.path, self.problems, self.unknown = path, list[Problem](), unknown or Words()
        self._odd: dict[int, dict[int, str]] = defaultdict(dict)  # {column: {row: text}}
        self._odd_count = Counter[int]()
        self._indexes: dict[bool, dict[str, int]] = {}
        source = open_table(path)
        source.first_column()
        self._spool = tempfile.TemporaryFile(prefix="medpair-table-")  # noqa: SIM115 - lives as long as the table
        at = [i for i, c in enumerate(source.header) if i == 0 or c in only]
        at = at if only and len(at) == 1 + len(set(only)) else list(range(len(source.header)))
        picked = len(at) < len(source.header)
        self.columns = [source.header[i] for i in at[1:]]
        self.rows: list[str] = []
        self.lines: list[int] = []
        self._place = source.place
        rows = ((line, [cells[i] for i in at] if picked else cells) for line, cells in source)
        while several := list(itertools.islice(rows, max(1, CELLS // len(at)))):
            self._take(several, source.text)
        self.problems += source.problems
        with _room():
            self._spool.flush()
        shape = (len(self.rows), len(self.columns))
        self.values = (
            np.memmap(self._spool, np.float32, "r", shape=shape) if all(shape) else np.zeros(shape, np.float32)
        )

    def _take(self, rows: list[tuple[int, list[str]]], text: bool) -> None:
        """Rows of the table: all at once where each cell is a number, else one by one."""
        given = [cells[1:] for _, cells in rows]
        values = _numbers(given, text)
        if values is None and len(rows) > 1:
            for row in rows:
                self._take([row], text)
            return
        if values is None:
            values = self._careful(given[0])
        self.rows += [text_of(cells[0]).strip() for _, cells in rows]
        self.lines += [line for line, _ in rows]
        try:
            self._spool.write(values.tobytes())
        except OSError:
            with _room():
                raise

    def _careful(self, cells: list[str]) -> np.ndarray:
        texts = [text_of(c) for c in cells]
        with np.errstate(over="ignore"):
            values = np.array([np.nan if (v := number(t)) is None else v for t in texts], np.float32)
        for i in np.flatnonzero(~np.isfinite(values)).tolist():
            if not self.unknown(texts[i]):
                self._odd_count[i] += 1
                if len(self._odd[i]) < KEPT:
                    self._odd[i][len(self.rows)] = texts[i]
        values[~np.isfinite(values)] = np.nan
        return values

    @property
    def has_odd_cells(self) -> bool:
        """Whether any cell holds a word."""
        return bool(self._odd)

    def worded(self) -> dict[int, str]:
        """A word of each column that holds mostly words, by position."""
        most = {i for i, n in self._odd_count.items() if 2 * n >= len(self.rows)}
        return {i: next(iter(self._odd[i].values())) for i in sorted(most)}

    def odd_cells(self, rows: Collection[int] | range, columns: Collection[int] | range) -> list[Problem]:
        """Cells among these that hold a word where a number should be."""
        found = []
        for column in sorted(set(self._odd) & set(columns)):
            for row, text in self._odd[column].items():
                if row in rows:
                    where = f"{self.path.parent / self._place(self.lines[row])} ('{self.rows[row]}'), column '{self.columns[column]}'"
                    comma = has_comma(text)
                    what = f"'{text}' {COMMA if comma else 'is not a finite number'}"
                    found.append(Problem(what, where, COMMA_FIX if comma else FIX_CELLS))
        return found

    def find(self, name: str, by_column: bool) -> int:
        """The position of a row, or of a column, by its name.

        Raises:
            KeyError: no such name; `LookupError`'s text says where it stands twice.
        """
        names = self.columns if by_column else self.rows
        index = self._index(by_column)
        if (at := index.get(name)) is None:
            raise KeyError(name)
        if at < 0:
            places = [i for i, n in enumerate(names) if n == name]
            shown = [f"column {i + 2}" if by_column else self._place(self.lines[i]) for i in places[:3]]
            raise LookupError(f"'{name}' stands twice: {', '.join(shown)}")
        return at

    def _index(self, by_column: bool) -> dict[str, int]:
        """{name: position}, -1 for a name that stands twice."""
        if by_column not in self._indexes:
            index: dict[str, int] = {}
            for i, name in enumerate(self.columns if by_column else self.rows):
                index[name] = -1 if name in index else i
            self._indexes[by_column] = index
        return self._indexes[by_column]

    def line(self, at: int, by_column: bool) -> np.ndarray:
        """All values of a row, or of a column."""
        return np.array(self.values[:, at] if by_column else self.values[at])

    def close(self) -> None:
        """Gives the temporary file back; nothing can be read any more."""
        self.values = np.zeros((0, 0), np.float32)
        self._spool.close()

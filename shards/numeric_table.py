"""Numeric tables (CSV, TSV, gzipped or not, Parquet): one named vector a row or a column, spooled to disk, never held in memory."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from shards.cells import COMMA, COMMA_FIX, has_comma, number, text_of
from shards.errors import Problem
from shards.table_file import open_table
from shards.unknown import is_unknown

FIX_CELLS = "the table must hold numbers beside its first column; leave a cell empty where a value is unknown"
MAX_REPORTED = 1000  # a wrong file would give a problem for every cell; the others are counted


class Table:
    """A table of numbers with row names (first column) and column names (header).

    The values lie in an anonymous temporary file as float32 and are read through a memory map, so a table of 11,000 x 60,000 costs
    disk and no memory. Cells that hold no number are NaN; those that should have been numbers are kept in `problems`.
    """

    def __init__(self, path: Path):
        self.path, self.problems = path, list[Problem]()
        self._spool = tempfile.TemporaryFile(prefix="medpair-table-")  # noqa: SIM115 - lives as long as the table
        source = open_table(path)
        source.first_column()
        self.columns = source.header[1:]
        self.rows: list[str] = []
        self._unreported = 0
        for line, cells in source:
            self._take(line, cells, source.text)
        if self._unreported:
            self.problems.append(Problem(f"{self._unreported} more cells are no numbers", str(path), FIX_CELLS))
        self.problems += source.problems
        self._spool.flush()
        shape = (len(self.rows), len(self.columns))
        self.values = (
            np.memmap(self._spool, np.float32, "r", shape=shape) if all(shape) else np.zeros(shape, np.float32)
        )
        self.row_of, self.column_of = ({n: i for i, n in enumerate(names)} for names in (self.rows, self.columns))
        for axis, names in (("row", self.rows), ("column", self.columns)):
            twice = [n for n, k in Counter(names).items() if k > 1]
            if twice:
                what = f"{len(twice)} {axis} names stand twice: {', '.join(twice[:5])}"
                self.problems.append(Problem(what, str(path), f"keep one {axis} of each name"))

    def _take(self, line: int, cells: list, text: bool) -> None:
        given = cells[1:]
        try:
            values = np.array(given, dtype=np.float32)
            # NumPy reads more than a number of a table: 3_3, digits of other scripts, inf.
            plain = not text or ((joined := "".join(given)).isascii() and "_" not in joined)
        except (ValueError, TypeError):
            plain = False
        if not plain or not np.isfinite(values).all():
            values = self._careful(line, cells)
        self.rows.append(text_of(cells[0]).strip())
        self._spool.write(values.tobytes())

    def _careful(self, line: int, cells: list) -> np.ndarray:
        texts = [text_of(c) for c in cells[1:]]
        with np.errstate(over="ignore"):
            values = np.array([np.nan if (v := number(t)) is None else v for t in texts], np.float32)
        for i in np.flatnonzero(~np.isfinite(values)):
            if not is_unknown(texts[i]):
                where = f"{self.path} line {line} ('{cells[0]}'), column '{self.columns[i]}'"
                comma = has_comma(texts[i])
                what = f"'{texts[i]}' {COMMA if comma else 'is not a finite number'}"
                self._report(Problem(what, where, COMMA_FIX if comma else FIX_CELLS))
        return values

    def _report(self, problem: Problem) -> None:
        if len(self.problems) < MAX_REPORTED:
            self.problems.append(problem)
        else:
            self._unreported += 1

    def row(self, name: str) -> np.ndarray:
        return np.array(self.values[self.row_of[name]])

    def column(self, name: str) -> np.ndarray:
        return np.array(self.values[:, self.column_of[name]])

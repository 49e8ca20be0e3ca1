"""Numeric tables (CSV, TSV, gzipped or not, Parquet): one named vector a row or a column, spooled to disk, never held in memory."""

from __future__ import annotations

import csv
import gzip
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from shards.errors import Problem, bad
from shards.seal import number

TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt.gz", ".parquet")
NOT_KNOWN = {"", "na", "nan", "null", "none", "n/a"}
FIX_CELLS = "the table must hold numbers beside its first column; leave a cell empty where a value is unknown"
MAX_REPORTED = 20  # a wrong file would give a problem for every cell


def is_table(path: Path) -> bool:
    return path.name.lower().endswith(TABLE_SUFFIXES)


class Table:
    """A table of numbers with row names (first column) and column names (header).

    The values lie in an anonymous temporary file as float32 and are read through a memory map, so a table of 11,000 x 60,000 costs
    disk and no memory. Cells that hold no number are NaN; those that should have been numbers are kept in `problems`.
    """

    def __init__(self, path: Path):
        self.path, self.problems = path, list[Problem]()
        self._spool = tempfile.TemporaryFile(prefix="medpair-table-")  # noqa: SIM115 - lives as long as the table
        source = table_rows(path)
        self.columns = next(source)[1:]
        self.rows: list[str] = []
        for line, cells in enumerate(source, 2):
            self._take(line, cells)
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

    def _take(self, line: int, cells: list) -> None:
        if not cells:
            return
        if len(cells) != len(self.columns) + 1:
            what = f"line {line} has {len(cells)} cells, the header {len(self.columns) + 1}"
            self._report(Problem(what, str(self.path), "mend the line"))
            return
        try:
            values = np.array(cells[1:], dtype=np.float32)
        except (ValueError, TypeError):
            values = self._careful(line, cells)
        self.rows.append(str(cells[0]))
        self._spool.write(values.tobytes())

    def _careful(self, line: int, cells: list) -> np.ndarray:
        values = [number(str(c)) for c in cells[1:]]
        for column, (value, text) in enumerate(zip(values, cells[1:], strict=True)):
            if value is None and text is not None and str(text).strip().lower() not in NOT_KNOWN:
                where = f"{self.path} line {line} ('{cells[0]}'), column '{self.columns[column]}'"
                self._report(Problem(f"'{text}' is not a finite number", where, FIX_CELLS))
        return np.array([np.nan if v is None else v for v in values], np.float32)

    def _report(self, problem: Problem) -> None:
        if len(self.problems) < MAX_REPORTED:
            self.problems.append(problem)

    def row(self, name: str) -> np.ndarray:
        return np.array(self.values[self.row_of[name]])

    def column(self, name: str) -> np.ndarray:
        return np.array(self.values[:, self.column_of[name]])


def table_rows(path: Path) -> Iterator[list]:
    """Header, then rows, of a CSV/TSV (cells are text) or Parquet file (cells are values).

    Raises:
        DataError: not readable as such.
    """
    return _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path)


def open_text(path: Path) -> IO[str]:
    """A text file, decompressed by its suffix; UTF-8, a byte-order mark is dropped."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def delimiter_of(path: Path, header: str) -> str:
    """Tab for *.tsv, or where the header has tabs and no comma; else comma."""
    tabs = ".tsv" in path.suffixes or ("\t" in header and "," not in header)
    return "\t" if tabs else ","


def _csv_rows(path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(1 << 30)
    try:
        with open_text(path) as f:
            header = f.readline()
            if not header.strip():
                raise bad("the table is empty", path, "give a table with a header line")
            delimiter = delimiter_of(path, header)
            yield next(csv.reader([header], delimiter=delimiter))
            yield from csv.reader(f, delimiter=delimiter)
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, OSError) as e:
        raise bad(
            f"cannot be read as a table ({e})", path, "give a CSV/TSV in UTF-8 (optionally .gz) or a Parquet file"
        ) from e


def _parquet_rows(path: Path) -> Iterator[list]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = list(file.schema_arrow.names)
        if "__index_level_0__" in names:  # where a data-frame library keeps row names
            names.remove("__index_level_0__")
            names.insert(0, "__index_level_0__")
        yield names
        for batch in file.iter_batches(batch_size=16, columns=names):
            columns = [batch.column(n).to_pylist() for n in names]
            yield from (list(row) for row in zip(*columns, strict=True))
    except (pa.ArrowInvalid, OSError) as e:
        raise bad(
            f"cannot be read as Parquet ({e})", path, "give a CSV/TSV in UTF-8 (optionally .gz) or a Parquet file"
        ) from e

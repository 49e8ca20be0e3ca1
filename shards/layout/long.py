"""Long tables as vectors: a row for each mutation of a sample becomes one column a gene. And which rows and columns a wide table has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem
from shards.layout.drawn import Drawing
from shards.layout.lines import Line
from shards.layout.nearly import nearly
from shards.layout.packed import packed_away, packed_fix
from shards.layout.schema import Listing, Long
from shards.pack.reference import COLUMN, Reference
from shards.tables.cells import number, text_of
from shards.tables.column_table import TableRow
from shards.tables.table_file import open_table


def counted(long: Long, line: Line) -> Sequence[TableRow]:
    """The rows of a sample that count."""
    return [
        row
        for row in line.more(long.table)
        if row[long.feature]
        and all(row[c] in words for c, words in long.keep.items())
        and not any(row[c] in words for c, words in long.drop.items())
    ]


def features_of(long: Long, lines: Iterable[Line]) -> list[str]:
    """The features that enough samples have, in alphabetical order."""
    samples = Counter(name for line in lines for name in {row[long.feature] for row in counted(long, line)})
    return sorted(name for name, n in samples.items() if n >= long.least)


def vector(long: Long, at: Mapping[str, int], line: Line) -> np.ndarray | None:
    """float32 [features]; None of a sample of which nothing is known. NaN where a value is not known.

    Args:
        at: the place of each feature.

    Raises:
        Drawing: a value that is no number, two values of one feature.
    """
    if not line.more(long.table) and not (long.known and line.fill(long.known)):
        return None
    x_D = np.full(len(at), np.nan if long.value else 0.0, np.float32)
    for row in counted(long, line):
        if (place := at.get(row[long.feature])) is None:
            continue
        value = number(row[long.value]) if long.value else 1.0
        if value is None:
            if row[long.value or ""]:
                raise Drawing(f"'{row[long.value or '']}' of '{row[long.feature]}' is no number ({row.where})")
            continue
        if long.value and x_D[place] == x_D[place] and x_D[place] != np.float32(value):
            raise Drawing(f"'{row[long.feature]}' has two values, {x_D[place]:g} and {value:g} ({row.where})")
        x_D[place] = value
    return x_D


class Names:
    """Rows and columns of wide tables, read when they are first asked for."""

    def __init__(self) -> None:
        self._names: dict[tuple[Path, bool], set[str]] = {}

    def has(self, reference: Reference) -> bool:
        """Whether a table has the row or the column; `of_wide_tables` says beforehand whether it can be read."""
        where = reference.path, reference.by_column
        if where not in self._names:
            self._names[where] = _names(*where)
        return (reference.member or "").removeprefix(COLUMN) in self._names[where]


def _names(path: Path, columns: bool) -> set[str]:
    if not path.is_file():
        return set()
    table = open_table(path)
    return {*table.header[1:]} if columns else {text_of(cells[0]).strip() for _, cells in table}


def wide_tables(layout: Listing) -> Iterator[tuple[str, str]]:
    """(field, file) of the fields that are rows or columns of one table for all samples, which may lack it."""
    for name, one in layout.fields.items():
        file = (one.reference or "").partition("#")[0]
        if file and one.missing == "absent" and "{" not in file:
            yield name, file


def of_wide_tables(layout: Listing, root: Path, notes: list[str]) -> Iterator[Problem]:
    """What is wrong with such tables: they lie there packed, under another name or as something else."""
    for name, file in wide_tables(layout):
        if (root / file).is_file():
            try:
                _names(root / file, True)
            except DataError as e:
                yield from e.problems
        elif fix := nearly(root, [file]) or packed_fix(root, packed_away(root, [file])):
            yield Problem(f"no table {file}", str(root), fix)
        else:
            notes.append(f"{file} is not there: no sample has '{name}'")


def of_nobody(layout: Listing, root: Path, lacks: Callable[[str], bool]) -> Iterator[Problem]:
    """Such tables that are there and have no sample."""
    for name, file in wide_tables(layout):
        if (root / file).is_file() and lacks(name):
            fix = "bring the table of these samples as it was published"
            yield Problem(f"has none of the samples, of which '{name}' is asked", str(root / file), fix)

"""What the tables of a layout say of the rows of another one: cells by a key that stands once, or rows of which several are of one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np

from shards.errors import Problem
from shards.layout.lines import Lines, Several, fill
from shards.layout.schema import COLUMN, Table
from shards.tables.column_table import ColumnTable
from shards.tables.columns import Column, Marks
from shards.tables.identity import damage
from shards.tables.keyed import repeated

AT_ONCE = 1 << 14
"""Keys that are looked up at once."""


def join(
    name: str,
    table: Table,
    read: ColumnTable | None,
    lines: Lines,
    asked: Collection[str],
    notes: list[str],
    problems: list[Problem],
) -> None:
    """Adds the cells of a joined table to every line, or its rows where several are of one. `read`: None where it is not there.

    A column that both have keeps the value of the rows; the joined one is called TABLE.COLUMN.
    """
    columns = table.columns if read is None else read.header
    place_N = np.full(len(lines), -1, np.int32) if read is None else _joined(name, table, read, lines, notes, problems)
    for column in columns:
        there = Column() if read is None else read.columns.get(column, Column())
        if f"{name}.{column}" in asked:
            lines.columns[f"{name}.{column}"] = there.taken(place_N)
        if column not in asked:
            continue
        own = lines.columns.get(column)
        if own is None:
            lines.columns[column] = there.taken(place_N)
        elif own.blanks and len(there):
            lines.columns[column] = there.taken(place_N, own)


def _joined(
    name: str, table: Table, read: ColumnTable, lines: Lines, notes: list[str], problems: list[Problem]
) -> np.ndarray:
    """int32 [N]: the row that each line is joined with, -1 for none."""
    place_N = _places(read, zip(*(_filled(t, lines) for t in table.join.values()), strict=True), len(lines))
    if not table.several and (twice := read.differing()):
        problems.append(repeated(read.path, twice, "row"))
    joined = int((place_N >= 0).sum())
    if not joined and not table.several:
        mine = [lines[0].fill(t) for t in table.join.values()]
        what = f"joined nobody: it has {'/'.join(read.first_key)}, the rows have {'/'.join(mine)}"
        odd = ((id_, damage(id_)) for id_ in (*read.first_key, *mine))
        changed = next((f"; ids such as '{id_}' {why}" for id_, why in odd if why), "")
        problems.append(Problem(what + changed, str(read.path), "bring the tables of one release"))
    if table.several:
        lines.more[name] = Several(read, read.keys.first(), place_N)
    of, used = read.keys.different(), len(np.unique(place_N[place_N >= 0]))
    notes.append(f"{read.path.name}: {joined} of {len(lines)} rows joined; {of - used} of its {of} are of no row")
    return place_N


def _places(read: ColumnTable, keys: Iterable[tuple[str, ...]], count: int) -> np.ndarray:
    """int32 [count]: the row of each key, -1 for none. A key with a blank in it names nobody, and is nobody's."""
    place_N, marks, blank = np.full(count, -1, np.int32), Marks(), bytearray()
    for i, parts in enumerate(keys, 1):
        marks.append(*parts)
        blank.append(not all(parts))
        if len(marks) == AT_ONCE or i == count:
            place_N[i - len(marks) : i] = np.where(np.frombuffer(blank, bool), -1, read.keys.all_of(marks))
            marks, blank = Marks(), bytearray()
    return place_N


def _filled(template: str, lines: Lines) -> Iterator[str]:
    """The template of every line."""
    only = COLUMN.fullmatch(template)
    return iter(lines.columns[only[1]]) if only else (fill(template, line.cells) for line in lines)

"""The rows of a set: of the tables and lists of files that name its samples, with what is joined to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from shards.errors import DataError, Problem, bad
from shards.layout.join import join
from shards.layout.lines import Lines
from shards.layout.nearly import BEGUN, nearly
from shards.layout.packed import packed_away, packed_fix
from shards.layout.schema import COLUMN, Listed, Listing, Table
from shards.layout.walk import Walk, misnamed, other_case
from shards.tables.column_table import ColumnTable, read_columns
from shards.tables.columns import Column
from shards.tables.identity import few


def lines_of(layout: Listing, root: Path, notes: list[str]) -> Lines:
    """All rows of a set.

    Raises:
        DataError: tables or files that are not there, packed, or of another release; joins of nobody; columns that nothing has.
    """
    if not root.is_dir():
        raise bad("no such folder", root, "give --root the folder that the set was unpacked in")
    read = _tables(layout, root, notes)
    if problems := [*_columns(layout, read)]:
        raise DataError(problems)
    lines = Lines()
    for source in layout.rows:
        if isinstance(source, Listed):
            problems += _add_files(lines, source, root)
        else:
            _add_rows(lines, layout.tables[source], read[source])
    if problems:
        raise DataError(problems)
    if not len(lines):
        patterns = [p for s in layout.rows if isinstance(s, Listed) for p in s.files]
        raise bad(
            f"no file {' or '.join(patterns)}", root, packed_fix(root) or "give --root the folder that holds the set"
        )
    asked = _asked(layout)
    for name, table in layout.tables.items():
        if table.join:
            join(name, table, read.pop(name, None), lines, asked, notes, problems)
    if problems:
        raise DataError(problems)
    return lines


def _tables(layout: Listing, root: Path, notes: list[str]) -> dict[str, ColumnTable]:
    """All tables that are there, first those of samples: what these have of each row is not kept of those joined to them.

    Raises:
        DataError: what is wrong with any of them.
    """
    read, said, wrong = dict[str, ColumnTable](), dict[str, list[str]](), dict[str, list[Problem]]()
    for name in sorted(layout.tables, key=lambda n: bool(layout.tables[n].join)):
        said[name], wrong[name] = [], []
        if (found := _table(name, layout, root, read, said[name], wrong[name])) is not None:
            read[name] = found
    notes += [note for name in layout.tables for note in said[name]]
    if problems := [problem for name in layout.tables for problem in wrong[name]]:
        raise DataError(problems)
    return read


def _table(
    name: str,
    layout: Listing,
    root: Path,
    read: Mapping[str, ColumnTable],
    notes: list[str],
    problems: list[Problem],
) -> ColumnTable | None:
    """Its one file; what is wrong, two of them too, goes to `problems`."""
    table = layout.tables[name]
    found = [n for n in Walk(root, table.file).names() if (root / n).is_file() and not BEGUN.search(n)]
    if not found:
        packed, near = packed_away(root, table.file) if table.optional else [], nearly(root, table.file)
        if table.optional and not packed and not near:
            notes.append(f"{table.file[0]} is not there: what it says is not known")
            return None
        what = f"no table {' or '.join(table.file)}"
        fix = near or packed_fix(root, packed or None) or "give --root the folder that holds the set, with its tables"
        problems.append(Problem(what, str(root), fix))
        return None
    if len(found) > 1:
        problems.append(Problem(f"{len(found)} files could be one table: {few(found)}", str(root), "keep one of each"))
        return None
    others = "; ".join(n for n in table.file[:3])
    fix = f"it is a table of another release: bring {others}, or copy the layout and name its columns"
    notes.append(f"table {found[0]}")
    if _lacks_its_end(root / found[0]):
        notes.append(f"the last line of {found[0]} has no end: if its download was cut, it is not whole")
    kept = _kept(name, layout, read)
    try:
        return read_columns(
            root / found[0],
            _needed(name, layout),
            fix,
            table.header or None,
            kept.__contains__,
            [*table.join],
            {other: column for column, others in table.called.items() for other in others},
        )
    except DataError as e:
        problems += e.problems
        return None


def _lacks_its_end(path: Path) -> bool:
    """Whether a table of text ends within a line: a cell that was cut reads like a whole one."""
    with open(path, "rb") as f:
        packed = f.read(4) in (b"PAR1",) or path.suffix == ".gz"
        return not packed and f.seek(0, 2) > 0 and f.seek(-1, 2) >= 0 and f.read(1) not in b"\r\n\0"


class _All:
    """Every column."""

    def __contains__(self, column: object) -> bool:
        return True


def _kept(name: str, layout: Listing, read: Mapping[str, ColumnTable]) -> set[str] | _All:
    """The columns whose cells are kept: a table may have a hundred columns, and half a million rows."""
    table, asked = layout.tables[name], _asked(layout)
    if not table.join:
        return asked
    named = {c.removeprefix(f"{name}.") for c in asked if c.startswith(f"{name}.")}
    long = [f.long for f in layout.fields.values() if f.long and f.long.table == name]
    if table.several and (not long or any(f.boxes and f.boxes.table == name for f in layout.fields.values())):
        return _All()
    of_long = {c for f in long for c in (f.feature, f.value or "", *f.keep, *f.drop)} | (
        {*table.join} if long else set()
    )
    return named | of_long | (asked - _whole(layout, read))


def _whole(layout: Listing, read: Mapping[str, ColumnTable]) -> set[str]:
    """Columns in which no row of a sample is blank: a joined table has nothing to add to them."""
    found = [{"path"} if isinstance(s, Listed) else _filled(layout.tables[s], read.get(s)) for s in layout.rows]
    return set.intersection(*found)


def _filled(table: Table, read: ColumnTable | None) -> set[str]:
    columns = {} if read is None else read.columns
    return {c for c, column in columns.items() if not column.blanks and c not in table.cut and c not in table.set}


def _needed(name: str, layout: Listing) -> list[str]:
    """The columns that a table must have: those that the layout lists, and those that it cannot do without."""
    table = layout.tables[name]
    more = [*table.join]
    for one in layout.fields.values():
        if one.boxes and one.boxes.table == name:
            more += one.boxes.columns
        if one.long and one.long.table == name:
            more += [c for c in (one.long.feature, one.long.value or "", *one.long.keep, *one.long.drop) if c]
    return [*dict.fromkeys((*table.columns, *more))]


def _add_rows(lines: Lines, table: Table, read: ColumnTable) -> None:
    columns = dict(read.columns)
    for column, pattern in table.cut.items():
        if column in columns:
            cut = re.compile(pattern)
            columns[column] = Column(cut.sub("", cell) for cell in columns[column])
    constant = {c: Column.of(word, len(read)) for c, word in table.set.items()}
    lines.add(columns | constant, len(read), read.where)
    if _lacks_its_end(read.path):
        lines.open_ends.append(read.path)


def _add_files(lines: Lines, listed: Listed, root: Path) -> Iterator[Problem]:
    """Files that the pattern is found in; others are not meant."""
    pattern = re.compile(listed.pattern)
    columns = {c: Column() for c in ("path", *pattern.groupindex)}
    walk = Walk(root, listed.files)
    for name in walk.names():
        if found := pattern.search(name):
            for column, cell in {"path": name, **found.groupdict()}.items():
                columns[column].append(cell or "")
    paths = columns["path"]
    constant = {c: Column.of(word, len(paths)) for c, word in listed.set.items()}
    lines.add(columns | constant, len(paths), paths.__getitem__)
    if others := misnamed((pair for pair in walk.other_case if pattern.search(pair[1])), root):
        yield other_case(others, "", root)


def _asked(layout: Listing) -> set[str]:
    """All columns that the layout speaks of."""
    joins = [t for table in layout.tables.values() for t in table.join.values()]
    return {c for t in (*joins, *(t for _, t in _templates(layout))) for c in COLUMN.findall(t)}


def _columns(layout: Listing, read: Mapping[str, ColumnTable]) -> Iterator[Problem]:
    """Columns that the layout speaks of and not all rows have."""
    known = set.intersection(*(_columns_of(layout, source, read) for source in layout.rows))
    for name, table in layout.tables.items():
        if table.join:
            for column in (c for t in table.join.values() for c in COLUMN.findall(t) if c not in known):
                what = (
                    f"tables.{name} joins by a column '{column}', which neither all rows nor the tables above it have"
                )
                yield Problem(
                    what, "the layout", f"put tables in the order in which they join; columns are {_some(known)}"
                )
            columns = read[name].header if name in read else table.columns
            known |= {c for column in columns for c in (column, f"{name}.{column}")}
    asked: dict[str, str] = {}
    for place, template in _templates(layout):
        asked |= {c: place for c in COLUMN.findall(template) if c not in known}
    for column, place in asked.items():
        fix = f"columns are {_some(known)}"
        yield Problem(f"{place} speaks of a column '{column}', which not all rows have", "the layout", fix)


def _some(columns: set[str]) -> str:
    return ", ".join(sorted(columns)[:40])


def _columns_of(layout: Listing, source: str | Listed, read: Mapping[str, ColumnTable]) -> set[str]:
    if isinstance(source, Listed):
        return {"path", *re.compile(source.pattern).groupindex, *source.set}
    return {*read[source].header, *layout.tables[source].set}


def _templates(layout: Listing) -> Iterator[tuple[str, str]]:
    yield "sample", layout.sample.value
    yield "patient", layout.patient.value
    for name, one in layout.fields.items():
        yield from ((f"fields.{name}", t) for t in (*one.path, one.reference or "", *one.text))
        if one.long:
            yield f"fields.{name}", one.long.known or ""
        if one.runs:
            yield f"fields.{name}", f"{{{one.runs.column}}}"
        if one.boxes and one.boxes.table is None:
            yield from ((f"fields.{name}", f"{{{c}}}") for c in one.boxes.columns)
    for label in layout.labels:
        yield from (("labels", f"{{{c}}}") for c in (*label.columns, *([label.column] if label.column else [])))
    yield from (("view", f"{{{c}}}") for c in (layout.view.columns if layout.view else []))
    yield from (("exclude", f"{{{e.column}}}") for e in layout.exclude)
    if layout.splits and layout.splits.column:
        yield "splits", f"{{{layout.splits.column}}}"

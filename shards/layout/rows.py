"""The rows of a set: of the tables and lists of files that name its samples, with what is joined to them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shards.errors import DataError, Problem, bad
from shards.format.archive import no_twins
from shards.layout.schema import COLUMN, Listed, Listing, Table
from shards.tables.identity import few
from shards.tables.keyed import Row, Rows, read_rows, repeated

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar", ".z01", ".zip.001", ".zip.part")
Key = tuple[str, ...]


@dataclass(slots=True)
class Line:
    """A row with the cells of the tables joined to it. `more`: rows of joined tables of which several may be of one."""

    cells: dict[str, str]
    where: str
    more: dict[str, list[Row]] = field(default_factory=dict)

    def said(self) -> list[object]:
        """All of its cells, as JSON."""
        return [self.cells, {name: [dict(row) for row in rows] for name, rows in self.more.items()}]

    def fill(self, template: str) -> str:
        """The template with its columns filled in; '' where one of them is blank."""
        values = [self.cells[c] for c in COLUMN.findall(template)]
        if not all(values):
            return ""
        texts = iter(values)
        return COLUMN.sub(lambda _: next(texts), template)


def lines_of(layout: Listing, root: Path, notes: list[str]) -> list[Line]:
    """All rows of a set.

    Raises:
        DataError: tables or files that are not there, packed, or of another release; joins of nobody; columns that nothing has.
    """
    if not root.is_dir():
        raise bad("no such folder", root, "give --root the folder that the set was unpacked in")
    problems = list[Problem]()
    read = {
        n: r for n, t in layout.tables.items() if (r := _table(t, root, notes, problems, _only(layout, n))) is not None
    }
    if problems:
        raise DataError(problems)
    if problems := [*_columns(layout, read)]:
        raise DataError(problems)
    lines: list[Line] = []
    asked = _asked(layout)
    for source in layout.rows:
        if isinstance(source, Listed):
            lines += _files(source, root)
        else:
            lines += _rows(layout.tables[source], read[source], asked)
    if not lines:
        patterns = [p for s in layout.rows if isinstance(s, Listed) for p in s.files]
        raise bad(
            f"no file {' or '.join(patterns)}", root, packed_fix(root) or "give --root the folder that holds the set"
        )
    for name, table in layout.tables.items():
        if table.join:
            _join(name, table, read.get(name), lines, asked, notes, problems)
    if problems:
        raise DataError(problems)
    return lines


def archives(root: Path) -> list[str]:
    """Archives in the root or a folder in it, by name."""
    found = [
        p for pattern in ("*", "*/*") for p in root.glob(pattern) if p.name.lower().endswith(ARCHIVES) and p.is_file()
    ]
    return sorted(p.relative_to(root).as_posix() for p in no_twins(found))


def packed_fix(root: Path) -> str:
    """What to do about archives that lie there; '' where there are none."""
    found = archives(root)
    return (
        f"unpack the {len(found)} archives that lie there ({few(found)}), each in a folder of its own name or in --root"
        if found
        else ""
    )


def _only(layout: Listing, name: str) -> set[str] | None:
    """The columns that are asked for of a table of samples or a long one; None of any other joined one, whose rows may be compared."""
    long = [f.long for f in layout.fields.values() if f.long and f.long.table == name]
    if not layout.tables[name].join:
        return _asked(layout)
    if not long or any(f.boxes and f.boxes.table == name for f in layout.fields.values()):
        return None
    asked = {c.removeprefix(f"{name}.") for c in _asked(layout)}
    return {c for f in long for c in (f.feature, f.value or "", *f.keep, *f.drop)} | {*layout.tables[name].join} | asked


def _table(
    table: Table, root: Path, notes: list[str], problems: list[Problem], only: set[str] | None = None
) -> Rows | None:
    """Its one file; what is wrong, two of them too, goes to `problems`."""
    found = sorted({p for name in table.file for p in no_twins(root.glob(name)) if p.is_file()})
    if not found:
        if table.optional:
            notes.append(f"{table.file[0]} is not there: what it says is not known")
            return None
        what = f"no table {' or '.join(table.file)}"
        fix = packed_fix(root) or "give --root the folder that holds the set, with its tables"
        problems.append(Problem(what, str(root), fix))
        return None
    if len(found) > 1:
        names = few([p.relative_to(root).as_posix() for p in found])
        problems.append(Problem(f"{len(found)} files could be one table: {names}", str(root), "keep one of each"))
        return None
    others = "; ".join(n for n in table.file[:3])
    fix = f"it is a table of another release: bring {others}, or copy the layout and name its columns"
    notes.append(f"table {found[0].relative_to(root).as_posix()}")
    try:
        return read_rows(found[0], table.columns, fix, header=table.header or None, only=only)
    except DataError as e:
        problems += e.problems
        return None


def _rows(table: Table, rows: Rows, asked: set[str]) -> list[Line]:
    """The cells that the layout speaks of: a table may have a hundred columns, and half a million rows."""
    kept = [c for c in rows.columns if c in asked]
    cut = {c: re.compile(p) for c, p in table.cut.items() if c in kept}
    return [
        Line({c: cut[c].sub("", row[c]) if c in cut else row[c] for c in kept} | table.set, row.where) for row in rows
    ]


def _files(listed: Listed, root: Path) -> Iterator[Line]:
    """Files that the pattern is found in; others are not meant."""
    for path in no_twins(p for pattern in listed.files for p in root.glob(pattern)):
        name = path.relative_to(root).as_posix()
        if found := re.search(listed.pattern, name):
            yield Line({"path": name, **{k: v or "" for k, v in found.groupdict().items()}, **listed.set}, name)


def _join(
    name: str,
    table: Table,
    rows: Rows | None,
    lines: list[Line],
    asked: set[str],
    notes: list[str],
    problems: list[Problem],
) -> None:
    """Adds the cells of a joined table to every line, or its rows where several are of one."""
    columns = tuple(rows.columns) if rows else tuple(table.columns)
    # A column that both have keeps the value of the rows; the joined one is called TABLE.COLUMN.
    own, named = [c for c in columns if c in asked], [c for c in columns if f"{name}.{c}" in asked]
    for line in lines:
        line.cells |= {f"{name}.{c}": "" for c in named} | {c: line.cells.get(c, "") for c in own}
    if rows is None:
        return
    of: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        of[tuple(row[c] for c in table.join)].append(row)
    if not table.several and (twice := list(_differing(of))):
        problems.append(repeated(rows.path, twice, "row"))
    joined, used = 0, set[Key]()
    for line in lines:
        key = tuple(line.fill(t) for t in table.join.values())
        if not (mine := of.get(key)):
            continue
        joined += 1
        used.add(key)
        if table.several:
            line.more[name] = mine
        line.cells |= {f"{name}.{c}": mine[0][c] for c in named}
        line.cells |= {c: mine[0][c] for c in own if not line.cells.get(c)}
    if not joined and not table.several:
        some = next(iter(of), ("",))
        what = f"joined nobody: it has {'/'.join(some)}, the rows have {'/'.join(lines[0].fill(t) for t in table.join.values())}"
        problems.append(Problem(what, str(rows.path), "bring the tables of one release"))
    notes.append(
        f"{rows.path.name}: {joined} of {len(lines)} rows joined; {len(of) - len(used)} of its {len(of)} are of no row"
    )


def _differing(of: Mapping[Key, list[Row]]) -> Iterator[tuple[str, str, str]]:
    """Keys on two lines that do not say the same."""
    for key, rows in of.items():
        other = next((r for r in rows[1:] if dict(r) != dict(rows[0])), None)
        if other is not None:
            yield "/".join(key), rows[0].where, other.where


def _asked(layout: Listing) -> set[str]:
    """All columns that the layout speaks of."""
    joins = [t for table in layout.tables.values() for t in table.join.values()]
    return {c for t in (*joins, *(t for _, t in _templates(layout))) for c in COLUMN.findall(t)}


def _columns(layout: Listing, read: Mapping[str, Rows]) -> Iterator[Problem]:
    """Columns that the layout speaks of and not all rows have."""
    known = set.intersection(*(_columns_of(layout, source, read) for source in layout.rows))
    for name, table in layout.tables.items():
        if table.join:
            columns = read[name].columns if name in read else table.columns
            known |= {c for column in columns for c in (column, f"{name}.{column}")}
    asked: dict[str, str] = {}
    for place, template in _templates(layout):
        asked |= {c: place for c in COLUMN.findall(template) if c not in known}
    for column, place in asked.items():
        fix = f"columns are {', '.join(sorted(known)[:40])}"
        yield Problem(f"{place} speaks of a column '{column}', which not all rows have", "the layout", fix)


def _columns_of(layout: Listing, source: str | Listed, read: Mapping[str, Rows]) -> set[str]:
    if isinstance(source, Listed):
        return {"path", *re.compile(source.pattern).groupindex, *source.set}
    return {*read[source].columns, *layout.tables[source].set}


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

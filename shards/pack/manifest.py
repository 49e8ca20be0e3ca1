"""The manifest: one line a sample, naming its patient, its labels and where each of its fields is.

Columns: `sample`, `patient`, optional `split`; `label:NAME` (or `label:NAME:class`, `label:NAME:number`); `field:NAME` holding a
reference (see shards/pack/reference.py); `text:NAME` holding the text itself; `slices`, an axis across which a line's volumes are cut,
each slice a sample. Any other column is refused, so that a typo is not lost data.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shards.errors import Problem, bad
from shards.format.describe import MEND_FILE, HeaderError
from shards.format.info import FIELD
from shards.pack.entries import Entries, Entry, bare, change
from shards.pack.entry_checks import entry_problems
from shards.pack.labels import LabelRule, settle
from shards.pack.reference import parse
from shards.pack.volumes import Volumes, slices_of
from shards.tables.cells import text_of
from shards.tables.identity import merged_note, one_spelling, person
from shards.tables.repeats import torn
from shards.tables.table_file import TableFile, open_table
from shards.tables.unknown import Words

RESERVED = {"meta"}


@dataclass
class Manifest:
    """Entries in file order, and the kind ('class' or 'number') of each label. `notes`: what to tell of how cells were read."""

    entries: Sequence[Entry]
    label_kinds: dict[str, str]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Column:
    role: str  # sample, patient, split, slices, label, field, text
    name: str = ""
    kind: str | None = None


def read_manifest(path: Path, rule: LabelRule | None = None) -> Manifest:
    """Reads a manifest (a table of any form that `shards.tables.table_file` reads). What is wrong with columns and lines is collected in
    `problems`, and the rest is read all the same, so that all that is wrong is told at once.

    Args:
        rule: words for "not known", and kinds of labels (`shards.pack.labels`).

    Raises:
        DataError: no such file, not a table, no samples.
    """
    table, rule = open_table(path), rule or LabelRule()
    manifest, entries = Manifest([], {}), Entries()
    columns = _columns(table, manifest.problems)
    roles, volumes = {c.role for c in columns if c}, Volumes()
    for line, cells in table:
        values = {c: text_of(v).strip() for c, v in zip(columns, cells, strict=True) if c}
        entry = _entry(values, table.place(line), path.parent, rule.words, manifest.problems)
        # Without these columns, which is told, one name a line stands in, so that it is not told again for every line.
        entry.sample = entry.sample if "sample" in roles else f"line-{line}"
        entry.patient = entry.patient if "patient" in roles else f"line-{line}"
        for made in _cut(entry, values.get(_Column("slices"), ""), rule.words, volumes, manifest.problems):
            entries.append(made)
    manifest.entries = entries.settled()
    manifest.problems += table.problems
    if not manifest.entries and not manifest.problems:
        raise bad("no samples", path, "one line a sample below the header")
    labels = {c.name: c.kind for c in columns if c and c.role == "label"}
    settled = settle(manifest.entries, [*labels], rule, kinds={n: k for n, k in labels.items() if k}, asked=labels)
    manifest.label_kinds, manifest.notes = settled.kinds, settled.notes
    manifest.problems += settled.problems
    manifest.problems += entry_problems(manifest.entries, fields=bool(roles & {"field", "text"}))
    return manifest


def _columns(table: TableFile, problems: list[Problem]) -> list[_Column | None]:
    """What each column means; None for those that mean nothing or stand for the second time, which becomes a problem."""
    columns: list[_Column | None] = []
    for i, text in enumerate(table.header):
        column = _column(text)
        if column is None and not text and i == 0:
            pass  # row numbers or names, as pandas and R write them
        elif column is None:
            problems.append(_meaningless(text, table))
        elif any(c and (_kind_of_name(c), c.name) == (_kind_of_name(column), column.name) for c in columns):
            problems.append(Problem(f"two columns for '{column.name or column.role}'", str(table.path), "keep one"))
            column = None
        columns.append(column)
    problems += _lacking({c.role for c in columns if c}, table.path)
    return columns


def _kind_of_name(column: _Column) -> str:
    """Fields and texts share their names."""
    return "field" if column.role == "text" else column.role


def _meaningless(text: str, table: TableFile) -> Problem:
    known = ["sample", "patient", "split", "slices", f"label:{text}", f"field:{text}", f"text:{text}"]
    near = difflib.get_close_matches(text, known[:4], n=1, cutoff=0.6)
    fix = f"columns are {', '.join(known)}; NAME is lower case a-z, 0-9 and _ for fields (the table is {table.form})"
    return Problem(f"column '{text}' means nothing", str(table.path), f"did you mean '{near[0]}'?" if near else fix)


def _lacking(roles: set[str], path: Path) -> Iterator[Problem]:
    for role in ("sample", "patient"):
        if role not in roles:
            yield Problem(f"no column '{role}'", str(path), f"every line needs a {role}")
    if not roles & {"field", "text"}:
        yield Problem("no column 'field:NAME' or 'text:NAME'", str(path), "a sample without any field teaches nothing")


def _column(text: str) -> _Column | None:
    role, *rest = text.split(":")
    if role in ("sample", "patient", "split", "slices"):
        return _Column(role) if not rest else None
    if role == "label" and len(rest) in (1, 2) and rest[0] and (len(rest) == 1 or rest[1] in ("class", "number")):
        return _Column(role, rest[0], rest[1] if len(rest) == 2 else None)
    if role in ("field", "text") and len(rest) == 1 and FIELD.fullmatch(rest[0]) and rest[0] not in RESERVED:
        return _Column(role, rest[0])
    return None


def _entry(values: Mapping[_Column, str], where: str, folder: Path, unknown: Words, problems: list[Problem]) -> Entry:
    entry = Entry(where, "", "")
    for column, text in values.items():
        if column.role == "label":
            entry.labels[column.name] = text  # `settle` takes those away that are not known, and says so
        elif column.role == "sample":
            entry.sample = text
        elif column.role == "split":
            entry.split = "" if unknown(text) else text
        elif unknown(text) or column.role == "slices":
            continue
        elif column.role == "patient":
            entry.patient = text
        elif column.role == "text":
            entry.texts[column.name] = text
        else:
            try:
                entry.fields[column.name] = parse(text, folder)
            except HeaderError as e:
                fix = "mend the cell (docs/data.md lists the forms)" if e.fix == MEND_FILE else e.fix
                problems.append(Problem(str(e), f"{where}, field '{column.name}'", fix))
    return entry


def _cut(entry: Entry, axis: str, unknown: Words, volumes: Volumes, problems: list[Problem]) -> list[Entry]:
    """The samples of a line: itself, or a slice of its volumes each."""
    if unknown(axis):
        return [entry]
    try:
        return slices_of(entry, axis, volumes)
    except HeaderError as e:
        problems.append(Problem(str(e), f"{entry.where} ('{entry.sample}'), column 'slices'", e.fix))
        return []


def one_name_each(manifest: Manifest) -> tuple[Manifest, list[str]]:
    """The manifest with one spelling for each person (the first), and a line that says who was written in several ways."""
    entries = manifest.entries
    several = torn((person(e.patient), e.patient) for e in bare(entries))
    spelling = one_spelling(e.patient for e in bare(entries) if hash(person(e.patient)) in several)
    if not merged_note(spelling):
        return manifest, []
    if not isinstance(entries, Entries):
        entries = [replace(e) for e in entries]

    def spelt(entry: Entry) -> None:
        entry.patient = spelling.get(entry.patient, entry.patient)

    change(entries, spelt)
    return replace(manifest, entries=entries), merged_note(spelling)

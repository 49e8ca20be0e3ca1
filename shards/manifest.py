"""The manifest: one line a sample, naming its patient, its labels and where each of its fields is.

Columns: `sample`, `patient`, optional `split`; `label:NAME` (or `label:NAME:class`, `label:NAME:number`); `field:NAME` holding a
reference (see shards/reference.py); `text:NAME` holding the text itself. Any other column is refused, so that a typo is not lost data.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shards.describe import HeaderError
from shards.errors import DataError, Problem, bad
from shards.format import FIELD, KEY, SPLITS
from shards.numeric_table import delimiter_of, open_text
from shards.reference import Reference, parse
from shards.seal import number

NOT_KNOWN = {"", "NA", "N/A", "nan", "NaN", "null", "None"}
RESERVED = {"meta"}


@dataclass
class Entry:
    """One sample of a manifest. `where` names its line."""

    where: str
    sample: str
    patient: str
    split: str | None = None
    labels: dict[str, str | float] = field(default_factory=dict)
    fields: dict[str, Reference] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


@dataclass
class Manifest:
    """Entries in file order, and the kind ('class' or 'number') of each label."""

    entries: list[Entry]
    label_kinds: dict[str, str]
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _Column:
    role: str  # sample, patient, split, label, field, text
    name: str = ""
    kind: str | None = None


def read_manifest(path: Path) -> Manifest:
    """Reads a CSV, TSV or Parquet manifest. What is wrong with single lines is collected in `problems`.

    Raises:
        DataError: no such file, not a table, no samples, or columns that are unknown, missing or doubled.
    """
    if not path.is_file():
        raise bad("no such file", path, "give the path of a manifest (docs/data.md shows one)")
    header, lines = _read(path)
    columns = _columns(header, path)
    manifest = Manifest([], {})
    for line, cells in enumerate(lines, 2):
        if not any(c.strip() for c in cells):
            continue
        if len(cells) != len(header):
            what = f"{len(cells)} cells, the header has {len(header)}"
            manifest.problems.append(Problem(what, f"{path.name} line {line}", "quote cells that hold commas"))
            continue
        values = {c: v.strip() for c, v in zip(columns, cells, strict=True)}
        manifest.entries.append(_entry(values, f"{path.name} line {line}", path.parent, manifest.problems))
    if not manifest.entries and not manifest.problems:
        raise bad("no samples", path, "one line a sample below the header")
    _settle_labels(manifest, [c for c in columns if c.role == "label"], path)
    manifest.problems += entry_problems(manifest.entries)
    return manifest


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as e:
            raise bad(f"cannot be read as Parquet ({e})", path, "give a CSV or a Parquet file") from e
        rows = zip(*(c.to_pylist() for c in table.columns), strict=True)
        return table.column_names, [["" if v is None else str(v) for v in row] for row in rows]
    csv.field_size_limit(1 << 30)
    try:
        with open_text(path) as f:
            first = f.readline()
            delimiter = delimiter_of(path, first)
            return next(csv.reader([first], delimiter=delimiter), []), list(csv.reader(f, delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error, OSError) as e:
        raise bad(f"cannot be read as a table ({e})", path, "give a CSV in UTF-8 or a Parquet file") from e


def _columns(header: list[str], path: Path) -> list[_Column]:
    problems, columns = [], []
    for text in (h.strip() for h in header):
        column = _column(text)
        if column is None:
            known = ["sample", "patient", "split", f"label:{text}", f"field:{text}", f"text:{text}"]
            near = difflib.get_close_matches(text, known[:3], n=1, cutoff=0.6)
            fix = (
                f"did you mean '{near[0]}'?"
                if near
                else f"columns are {', '.join(known)}; NAME is lower case a-z, 0-9 and _ for fields"
            )
            problems.append(Problem(f"column '{text}' means nothing", str(path), fix))
        else:
            columns.append(column)
    names = [(c.role in ("field", "text"), c.role if not c.name else c.name) for c in columns]
    for double in sorted({n for n in names if names.count(n) > 1}):
        problems.append(Problem(f"two columns for '{double[1]}'", str(path), "keep one"))
    for role in ("sample", "patient"):
        if role not in {c.role for c in columns}:
            problems.append(Problem(f"no column '{role}'", str(path), f"every line needs a {role}"))
    if not any(c.role in ("field", "text") for c in columns):
        problems.append(
            Problem("no column 'field:NAME' or 'text:NAME'", str(path), "a sample without any field teaches nothing")
        )
    if problems:
        raise DataError(problems)
    return columns


def _column(text: str) -> _Column | None:
    role, *rest = text.split(":")
    if role in ("sample", "patient", "split"):
        return _Column(role) if not rest else None
    if role == "label" and len(rest) in (1, 2) and rest[0] and (len(rest) == 1 or rest[1] in ("class", "number")):
        return _Column(role, rest[0], rest[1] if len(rest) == 2 else None)
    if role in ("field", "text") and len(rest) == 1 and FIELD.fullmatch(rest[0]) and rest[0] not in RESERVED:
        return _Column(role, rest[0])
    return None


def _entry(values: Mapping[_Column, str], where: str, folder: Path, problems: list[Problem]) -> Entry:
    entry = Entry(where, "", "")
    for column, text in values.items():
        if column.role in ("sample", "patient"):
            setattr(entry, column.role, text)
        elif column.role == "split":
            entry.split = text
        elif column.role == "label" and text not in NOT_KNOWN:
            entry.labels[column.name] = text
        elif column.role == "text" and text:
            entry.texts[column.name] = text
        elif column.role == "field" and text:
            try:
                entry.fields[column.name] = parse(text, folder)
            except HeaderError as e:
                problems.append(
                    Problem(str(e), f"{where}, field '{column.name}'", "mend the cell (docs/data.md lists the forms)")
                )
    return entry


def entry_problems(entries: list[Entry]) -> list[Problem]:
    """Keys and patients that are missing or malformed, doubled samples, unknown splits, patients in two splits."""
    problems, first, split_of = [], dict[str, str](), dict[str, tuple[str, str]]()
    for e in entries:
        if not KEY.fullmatch(e.sample):
            fix = "a key has letters, digits, '_' and '-' only: a dot would end it in a tar, a slash leaves the folder"
            problems.append(Problem(f"sample '{e.sample}' is not a key", e.where, fix))
        elif e.sample in first:
            problems.append(
                Problem(
                    f"sample '{e.sample}' stands twice (first in {first[e.sample]})",
                    e.where,
                    "give every sample a key of its own",
                )
            )
        first.setdefault(e.sample, e.where)
        if not e.patient:
            problems.append(
                Problem(
                    f"sample '{e.sample}' has no patient",
                    e.where,
                    "fill the patient column: splits are made by patient",
                )
            )
        if not e.fields and not e.texts:
            problems.append(
                Problem(f"sample '{e.sample}' has no field at all", e.where, "fill a field or drop the line")
            )
        if e.split is not None and e.split not in SPLITS:
            problems.append(Problem(f"split '{e.split}'", e.where, f"one of {', '.join(SPLITS)}"))
        elif e.split is not None and e.patient:
            other = split_of.setdefault(e.patient, (e.split, e.where))
            if other[0] != e.split:
                what = f"patient '{e.patient}' is in {e.split} here and in {other[0]} in {other[1]}"
                problems.append(Problem(what, e.where, "put all samples of a patient into one split"))
    return problems


def _settle_labels(manifest: Manifest, columns: list[_Column], path: Path) -> None:
    """Decides class or number for each label column and turns the cells of number columns into numbers."""
    for column in columns:
        cells = [(e, str(e.labels[column.name])) for e in manifest.entries if column.name in e.labels]
        values = [(e, text, number(text)) for e, text in cells]
        words = [(e, text) for e, text, v in values if v is None]
        kind = column.kind or ("class" if len(words) == len(values) else "number")
        manifest.label_kinds[column.name] = kind
        if kind == "class":
            continue
        for e, text in words[:20]:
            fix = "mend the cell, or leave it empty"
            if column.kind is None:
                fix += f"; if the column holds classes, call it 'label:{column.name}:class'"
            manifest.problems.append(
                Problem(f"label '{column.name}' is '{text}', not a number like the others", e.where, fix)
            )
        for e, _, value in values:
            if value is not None:
                e.labels[column.name] = value

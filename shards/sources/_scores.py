"""Tables of scores, one line a person: which column names people. Which of the others are scores is told by `shards.tables.features`.

Read as they are: a first column of people and scores behind it. Known besides: PLINK's FID and IID,
https://www.cog-genomics.org/plink/2.0/formats#sscore .
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DataError, bad, typed
from shards.pack.reference import Reference
from shards.sources._plink import together
from shards.tables.cells import text_of
from shards.tables.keyed import column_problems, no_column, repeated
from shards.tables.table_file import TableFile, open_table

# What the column of people may be called, beside a first column without a name.
PEOPLE = (
    "iid", "sample", "sample_id", "sampleid", "eid", "f.eid", "id", "person", "person_id", "patient", "patient_id", "subject", "subject_id",
    "participant", "participant_id", "individual", "individual_id",
)  # fmt: skip


@dataclass
class Scores:
    """People of a table with the place of each, how to refer to a person's line, and what to tell."""

    people: dict[str, str]
    reference: Callable[[str], Reference]
    notes: list[str]


def read_scores(flag: str, path: Path, column: str | None, work: Path) -> Scores:
    """The people of a table of scores.

    Args:
        flag: the option that names the table; `FLAG-people` names its column of people.
        column: that column, or several whose cells are joined by `_` (FID,IID); None: the first.
        work: where a copy is written with people in its first column, if the table has them elsewhere.

    Raises:
        DataError: no table; no such column; a first column that is none of people while another may be; a person on two lines.
    """
    table = open_table(path)
    if problems := column_problems(table):
        raise DataError(problems)
    columns = _columns(flag, table, column)
    at = [table.header.index(c) for c in columns]
    rows = [(table.place(line), [text_of(cells[i]).strip() for i in at]) for line, cells in table]
    if table.problems:
        raise DataError(table.problems)
    places = [place for place, _ in rows]
    if column is None and len(columns) > 1:
        names, notes = together([c[0] for _, c in rows], [c[1] for _, c in rows], places, path)
    else:
        names, notes = ["_".join(c) for _, c in rows], []
    people = _once(path, names, places)
    if at == [0]:
        return Scores(people, lambda name: Reference(f"{path.name}#{name}", path, name), notes)
    copy = _copied(path, at, names, work / f"{flag.strip('-')}.csv")
    return Scores(people, lambda name: Reference(f"{path.name}#{name}", copy, name), notes)


def _columns(flag: str, table: TableFile, column: str | None) -> list[str]:
    """The columns that name people."""
    if column is not None:
        columns = column.split(",")
        if lacking := [c for c in columns if c not in table.header]:
            raise DataError(no_column(lacking, f"{flag}-people", table.path, table.header))
        return columns
    first, lower = table.first_column(), [h.casefold() for h in table.header]
    if lower[0] == "fid" and "iid" in lower:
        return [first, table.header[lower.index("iid")]]
    likely = [h for h, low in zip(table.header[1:], lower[1:], strict=True) if low in PEOPLE]
    if likely and lower[0] not in PEOPLE:
        example = next((text_of(cells[0]) for _, cells in table), "")
        what = f"its first column, '{first}' ('{example}' in the first line), seems not to name people, as '{likely[0]}' does"
        fix = f"give {flag}-people {typed(likely[0])}, or {flag}-people {typed(first)}; columns: {', '.join(table.header)}"
        raise bad(what, f"{flag} {table.path}", fix)
    return [first]


def _once(path: Path, names: Sequence[str], places: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    twice = [(n, found[n], p) for n, p in zip(names, places, strict=True) if found.setdefault(n, p) != p]
    if twice:
        raise DataError(repeated(path, twice, "person"))
    return found


def _copied(path: Path, at: Sequence[int], names: Sequence[str], copy: Path) -> Path:
    """The table with people in its first column, cells as they are."""
    table = open_table(path)
    kept = [i for i in range(len(table.header)) if i not in at]
    if not kept:
        what = f"no column of scores beside those of people ({', '.join(table.header)})"
        raise bad(what, path, "give a table with a column of scores")
    copy.parent.mkdir(parents=True, exist_ok=True)
    with open(copy, "w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["person", *(table.header[i] for i in kept)])
        for name, (_, cells) in zip(names, table, strict=True):
            writer.writerow([name, *(text_of(cells[i]) for i in kept)])
    return copy

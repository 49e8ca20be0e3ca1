"""A published table of genome-wide studies beside the counts that the same systems came to here."""

from __future__ import annotations

import json
from typing import Any

from trainer.errors import UserError
from trainer.reporting import words
from trainer.reporting.table import Table
from trainer.sweep.points import Sweep
from trainer.sweep.rows import STUDY, Column

NOTE = (
    "Counts of one study each, without intervals: people cannot be resampled for a count of clumps. Other people, images and genotypes: a "
    "difference between here and published says little about the systems."
)


def table_of(sweep: Sweep) -> Table:
    """Raises: UserError: studies without the count that their column is of, all at once."""
    cells: dict[str, dict[str, tuple[str, str]]] = {}
    people, problems = set[tuple[int, int]](), []
    for point in sweep.points:
        path = sweep.folder(point) / STUDY
        study = json.loads(path.read_bytes()) if path.is_file() else None
        if study is not None:
            people.add((study["people"], study["variants"]))
        for at in point.values["columns"]:
            column = sweep.columns[at]
            if study is not None and not isinstance(study.get(column.metric), int):
                problems.append(
                    f"{path}: counts no '{column.metric}', which the column {at} is of; write clumps or regions_1mb"
                )
                continue
            row = cells.setdefault(point.values["row"], {})
            row[at] = (_here(column, study), _printed(sweep.rows[point.name].printed.get(at)))
    if problems:
        raise UserError(problems)
    head = ("", "reads", *(cell for at in sweep.columns for cell in (at, f"{at}, published")), "remark")
    of = {p.values["row"]: sweep.rows[p.name] for p in sweep.points}
    lines = [
        (name, of[name].group or words.NONE, *(c for at in sweep.columns for c in row[at]), of[name].note)
        for name, row in cells.items()
    ]
    tested = "; ".join(f"{n} people and {m} variants" for n, m in sorted(people)) or "no study has ended yet"
    return Table(sweep.title or sweep.file.stem, head, tuple(lines), note=f"Here: {tested}. {NOTE}")


def _here(column: Column, study: dict[str, Any] | None) -> str:
    return "no result" if study is None else str(study[column.metric])


def _printed(value: float | None) -> str:
    return words.NONE if value is None else f"{value:g}"

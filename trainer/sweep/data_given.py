"""Points that name no data of their own, where the demo cohort in its place would be hours of work for nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from trainer.errors import UserError
from trainer.sweep.points import TASK, Point, Sweep, some_of
from trainer.sweep.selection import started_from

OF_ANY_DATA = ("report_retrieval",)
"""Tasks of whatever images and reports there are, those of the demo cohort among them."""


def refuse_missing_data(sweep: Sweep, points: Sequence[Point]) -> None:
    """A run without data takes the demo cohort: of a table of published tasks that is hours of pre-training before a row is refused.

    Raises:
        UserError: rows of tasks that the demo cohort has not, and what they start from, where no word says which data they read.
    """
    tasks = {p.name: Path(task).stem for p in points for flag, task in itertools.pairwise(p.words) if flag == TASK}
    studies, demo = sweep.command == "gwas", sweep.of_methods == "demo"

    def is_real(task: str) -> bool:
        return not (demo if studies or task in OF_ANY_DATA else task.startswith("demo_"))

    real = [p for p in points if is_real(tasks.get(p.name, "demo_"))]
    rows = [p.name for p in real if not studies and not _has_data(p)]
    starts = [p.name for p in started_from(sweep, real) if not _has_data(p)]
    problems = []
    if rows:
        named = ", ".join(dict.fromkeys(tasks[name] for name in rows))
        problems.append(
            f"{sweep.file}: no data for the rows of {named}, which the demo cohort does not have: give data.path=DIR "
            "(COLUMN:data.path=DIR where columns differ), or --recipe demo where the table has one"
        )
    if starts:
        problems.append(
            f"{sweep.file}: no data for the pre-training ({some_of(starts)}), which would be made on the demo "
            "cohort: give pretrain:data.path=DIR"
        )
    if problems:
        raise UserError(problems)


def _has_data(point: Point) -> bool:
    return any(w.startswith("data.") for w in point.words)


def refuse_no_people(point: Point) -> None:
    """Raises: UserError: what a study of genotypes is of is not among its words."""
    missing = [key for key in ("data", "bed", "covariates") if f"--{key}" not in point.words]
    if missing:
        raise UserError(
            f"no {', '.join(missing)} of the people who are tested: give data=DIR bed=FILE covariates=FILE "
            "(`python -m shards demo DIR --people 2000` makes DIR/images, DIR/chip.bed and DIR/covariates.csv)"
        )

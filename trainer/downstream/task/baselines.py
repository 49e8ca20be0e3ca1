"""What a baseline refuses: another mode than a probe, and columns that hold the task's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.registry import baseline_names
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

PROBES = ("linear", "knn")


def check_baseline(task: Task, method: str, options: Mapping[str, Any]) -> None:
    """Nothing for a method that is no baseline.

    Raises:
        UserError: all problems at once.
    """
    if method not in baseline_names():
        return
    problems = []
    if task.mode not in PROBES:
        problems.append(f"mode: {task.mode}: {method} has no weights to train; give --mode linear")
    answers = {*task.labels, *filter(None, [task.time, task.event])}
    if both := [c for c in options.get("columns", ()) if c in answers]:
        problems.append(
            f"method.columns: {', '.join(both)}: the answer of {task.name} itself; leave it out of method.columns"
        )
    if problems:
        raise UserError(problems)

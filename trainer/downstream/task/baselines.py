"""What a baseline refuses: another mode than a probe, and columns that hold the task's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.contract.joint import JointSpace
from models.registry import baseline_names, get_method
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
    spoken = task.mode == "zeroshot" and issubclass(get_method(method), JointSpace)
    if task.mode not in PROBES and not spoken:
        problems.append(f"mode: {task.mode}: {method} has no weights to train; give --mode linear")
    answers = {*task.labels, *filter(None, [task.time, task.event])}
    if both := [c for c in options.get("columns", ()) if c in answers]:
        problems.append(
            f"method.columns: {', '.join(both)}: the answer of {task.name} itself; leave it out of method.columns"
        )
    if problems:
        raise UserError(problems)

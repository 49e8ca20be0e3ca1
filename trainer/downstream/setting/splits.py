"""Which samples of a task take part, split by split."""

from __future__ import annotations

import numpy as np

from shards.read.dataset import Dataset
from trainer.downstream.targets.read import Targets, check_split, targets_of_split
from trainer.downstream.targets.values import words_of
from trainer.downstream.task.schema import Task
from trainer.errors import UserError


def splits_of(task: Task, data: Dataset, targets: Targets) -> dict[str, np.ndarray]:
    """{split: samples with a target}.

    Raises:
        UserError: two splits that are one, or one without what the task needs.
    """
    splits, problems = dict[str, np.ndarray](), list[str]()
    for which in (*((task.data.train, task.data.val) if task.learns else ()), task.data.test):
        at = data.subset(which).indices
        at = at[targets.used_N[at]]
        splits[which] = at if task.hold_out is None else _held_out(task, data, at, which)
        problems += check_split(task, targets, splits[which], which)
    if task.learns and len(splits) < 3:
        problems.append(f"data.train, data.val, data.test: {', '.join(splits)}: three different splits are needed")
    if problems:
        raise UserError(problems)
    for which in (task.data.val, task.data.test) if task.learns else ():
        targets_of_split(task, targets, splits[which], which)
    return splits


def _held_out(task: Task, data: Dataset, at: np.ndarray, which: str) -> np.ndarray:
    """Of the test split the cases of the site that is held out, of the others all other cases."""
    assert task.site is not None
    there_N = words_of(data, task.site)[at] == task.hold_out
    return at[there_N if which == task.data.test else ~there_N]

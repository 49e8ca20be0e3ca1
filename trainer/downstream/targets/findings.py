"""Yes-or-no labels of a multilabel task: which word says yes, what an uncertain answer and an empty cell count for.

Shape letters: N samples of the data set, K labels.
"""

from __future__ import annotations

import numpy as np

from models.finetuned import TargetSpec
from shards.read.dataset import Dataset
from shards.tables.sides import (
    BINARY,
    TRUTH,
    UNCERTAIN,
    Sides,
    examples,
    one_of,
    plain,
    quoted,
    understood,
)
from trainer.downstream.targets.meaning import Understood
from trainer.downstream.targets.values import coded, values_of, words_of
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

TURNED = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0, "class": 2.0}


def findings(task: Task, data: Dataset) -> tuple[TargetSpec, np.ndarray, Understood]:
    """Targets [N, K]: 0, 1, NaN where unknown, 2 where an uncertain answer is a class of its own.

    Raises:
        UserError: all labels whose words are not understood, or that hold uncertain answers without a choice, at once.
    """
    columns, problems = [], []
    said = Understood()
    for name in task.labels:
        try:
            columns.append(_column(task, data, name, said))
        except UserError as e:
            problems += e.problems
    if problems:
        raise UserError(problems)
    value_NK = np.stack(columns, 1)
    blank_NK = np.stack([words_of(data, n) == "" for n in task.labels], 1)
    if task.blank == "absent":
        blank_NK &= _looked_at(task, data)[:, None]
        value_NK[blank_NK] = 0.0
    empty = {n: int(k) for n, k in zip(task.labels, blank_NK.sum(0), strict=True) if k}
    said = Understood(said.sides, said.uncertain, (task.blank, empty) if empty else None)
    third = any(task.uncertain_of(n) == "class" for n in task.labels)
    K = len(task.labels)
    return TargetSpec("multilabel", 3 * K if third else K, task.labels), value_NK, said


def _column(task: Task, data: Dataset, name: str, said: Understood) -> np.ndarray:
    """A label [N] as numbers; notes in `said` what its words were taken for."""
    words = tuple(w for w in values_of(data, name) if w not in task.leave_out)
    unsure = tuple(w for w in words if plain(w) in UNCERTAIN)
    sides = _sides(task, data, name, tuple(w for w in words if w not in unsure))
    said.sides[name] = sides
    codes = dict.fromkeys(sides.yes, 1.0) | dict.fromkeys(sides.no, 0.0)
    if unsure:
        choice = task.uncertain_of(name)
        n = int(np.isin(words_of(data, name), unsure).sum())
        if choice is None:
            raise UserError(
                f"task {task.name}: label '{name}' of {data.path} is {quoted(unsure)} in {n} samples: say what that counts for, "
                "`uncertain: ignore` (unknown), `ones`, `zeros` or `class` (a third answer in training), for all labels or {label: choice}"
            )
        said.uncertain[name] = (choice, n)
        codes |= dict.fromkeys(unsure, TURNED[choice])
    return coded(task, data, name, codes)


def _sides(task: Task, data: Dataset, name: str, words: tuple[str, ...]) -> Sides:
    """Which of a label's words say that the finding is there."""
    positive = task.positive.get(name) if isinstance(task.positive, dict) else task.positive
    if positive is not None:
        if not one_of([positive], words) or len(words) > 2:
            raise UserError(
                f"task {task.name}: label '{name}' of {data.path} has the values {quoted(words)}: `positive: '{positive}'` has to be "
                "one of two; take others out with leave_out: [WORD]"
            )
        return Sides((positive,), tuple(w for w in words if w != positive), "as `positive` says")
    if not words:
        return Sides((), (), "no answer")
    found = understood(words, BINARY)
    if found is None or len(words) > 2:
        raise UserError(
            f"task {task.name}: label '{name}' of {data.path} has the values {quoted(words)}: which says yes? Write "
            f"`positive: {{{name}: WORD}}`, and take what is neither out with leave_out: [WORD]; only words like {examples(BINARY)} say "
            "it by themselves"
        )
    return found


def _looked_at(task: Task, data: Dataset) -> np.ndarray:
    """[N] whether anybody labelled the sample: some finding of the data set has an answer. Other films are unknown, not healthy."""
    names = [n for n in data.info.labels if n in task.labels or _is_finding(data, n)]
    known_NL: np.ndarray = np.stack([words_of(data, n) != "" for n in names], 1)
    return np.asarray(known_NL.any(1))


def _is_finding(data: Dataset, name: str) -> bool:
    words = [w for w in values_of(data, name) if plain(w) not in UNCERTAIN]
    return understood(words, (TRUTH,)) is not None

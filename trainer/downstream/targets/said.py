"""What the words of a task's labels were taken for, and how many there are in each split: a run's first lines and result.json.

Shape letters: M samples of a split, T numbers of a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.downstream.targets.read import Targets
from trainer.downstream.task.schema import Task

BECAME = {
    "ignore": "left out one by one", "ones": "taken as present", "zeros": "taken as absent",
    "class": "a third answer in training, unknown when measured", "unknown": "unknown", "absent": "taken as absent",
}  # fmt: skip
MOST = 6


def counts(task: Task, targets: Targets, splits: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """By split, how many samples have which answer. Survival: events and censored; multilabel: label -> {yes, no, unknown, ...}."""
    return {name: _counted(task, targets, targets.value_NT[at]) for name, at in splits.items()}


def _counted(task: Task, targets: Targets, value_MT: np.ndarray) -> dict[str, Any]:
    if task.kind == "survival":
        events = int(value_MT[:, 1].sum())
        return {"events": events, "censored": len(value_MT) - events}
    if task.kind in ("binary", "multiclass", "ordinal"):
        return {c: int((value_MT[:, 0] == i).sum()) for i, c in enumerate(targets.question.classes)}
    if task.kind == "multilabel":
        return {n: _answers(column_M) for n, column_M in zip(task.labels, value_MT.T, strict=True)}
    return {}


def _answers(column_M: np.ndarray) -> dict[str, int]:
    all_ = {"yes": column_M == 1, "no": column_M == 0, "unknown": np.isnan(column_M), "uncertain": column_M == 2}
    return {k: int(v.sum()) for k, v in all_.items() if k != "uncertain" or v.any()}


def plain(targets: Targets) -> dict[str, Any]:
    """As result.json has it: label -> the words that say yes and those that say no, and what else was turned into an answer."""
    said = targets.understood
    out: dict[str, Any] = {
        n: {"yes": list(s.yes), "no": list(s.no), "by": s.by}
        | (
            {"uncertain": said.uncertain[n][0], "uncertain_samples": said.uncertain[n][1]}
            if n in said.uncertain
            else {}
        )
        | ({"blank": said.blank[0], "blank_samples": said.blank[1][n]} if said.blank and n in said.blank[1] else {})
        for n, s in said.sides.items()
    }
    return out


def lines(task: Task, targets: Targets, splits: Mapping[str, np.ndarray]) -> list[str]:
    """For a person, before anything else: which word is the event or the positive class, and how many there are."""
    said, found = targets.understood, counts(task, targets, splits)
    if task.kind == "survival":
        ((label, sides),) = said.sides.items()
        each = ", ".join(f"{n['events']} of {n['events'] + n['censored']} in {split}" for split, n in found.items())
        return [f"event: {label} {sides.text}: {each}"]
    if task.kind == "binary":
        ((label, sides),) = said.sides.items()
        each = ", ".join(f"{n[sides.yes[0]]} of {sum(n.values())} in {split}" for split, n in found.items())
        return [f"positive: {label} {sides.text}: {each}"]
    if task.kind == "multilabel":
        return _of_labels(task, targets, found)
    return []


def _of_labels(task: Task, targets: Targets, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    said = targets.understood
    alike: dict[str, list[str]] = {}
    for label, sides in said.sides.items():
        alike.setdefault(sides.text, []).append(label)
    out = [f"positive: {text} of {_some(labels)}" for text, labels in alike.items()]
    for split, n in found.items():
        each = [f"{label} {k['yes']} of {k['yes'] + k['no']}" for label, k in n.items()]
        out.append(f"  {split}: {_some(each)}")
    turned: dict[str, list[str]] = {}
    for label, (choice, k) in said.uncertain.items():
        turned.setdefault(choice, []).append(f"{label} {k}")
    out += [f"uncertain answers {BECAME[c]} (uncertain={c}): {_some(labels)}" for c, labels in turned.items()]
    if said.blank:
        choice, empty = said.blank
        out.append(f"empty cells {BECAME[choice]} (blank={choice}): {_some([f'{n} {k}' for n, k in empty.items()])}")
    return out


def _some(items: list[str]) -> str:
    return ", ".join(items[:MOST]) + (f" and {len(items) - MOST} more" if len(items) > MOST else "")

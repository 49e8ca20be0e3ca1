"""How another data set's labels are read as the answers that a trained head gives: by the classes that it knows, in their order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from models.contract import TargetSpec
from shards.read.dataset import Dataset
from trainer.config.recipe import override
from trainer.downstream.targets.read import Targets, read_targets
from trainer.downstream.task.read import merged, parse_task
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

READS = (
    "label", "time", "event", "event_value", "censored", "classes", "leave_out", "positive", "uncertain", "blank", "mask",
    "mask_values", "mask_missing",
)  # fmt: skip
"""Keys of a task that say how labels are read: another data set may have other names and words."""
LOOKS = ("data", "output", "leak", "bootstrap")
WITHIN = {
    "data": ("path", "split", "workers", "cache", "cache_gb"),
    "output": ("attention", "gradients"),
    "leak": ("accept", "near"),
    "bootstrap": ("draws", "seed", "level"),
}
"""Sections of a task that a look may change, and what of them."""
OF_CLASSES = ("binary", "multiclass", "ordinal")


def external_task(values: Mapping[str, Any], question: TargetSpec, given: Mapping[str, Any]) -> tuple[Task, str | None]:
    """The run's task for a look at other data, and the split to look at (None: all of it).

    Args:
        values: the run's own task, as `trained.json` has it.
        given: what is said of the other data: keys of `READS` and `WITHIN`.

    Raises:
        UserError: other keys, or classes that are not those that the head gives.
    """
    _check_keys(given)
    words = {k: dict(v) if isinstance(v, Mapping) else v for k, v in given.items()}
    split = words.get("data", {}).pop("split", None)
    base = dict(values)
    # What the run was told to accept, and to show, was of its own cases.
    base.pop("leak", None)
    base["output"] = {k: v for k, v in dict(base.get("output", {})).items() if k not in WITHIN["output"]}
    base["data"] = {k: v for k, v in dict(base.get("data", {})).items() if k in ("train", "val", "test", "workers")}
    if "classes" in words or (question.kind in OF_CLASSES and base.get("classes") is None and not base.get("grades")):
        words["classes"] = _in_order(words.get("classes", list(question.classes)), question)
    if question.kind == "binary":
        words.setdefault("positive", question.classes[1])
    task = parse_task(merged(_replaced(base, words), {k: v for k, v in words.items() if k in LOOKS}))
    if (
        task.kind in ("multilabel", "regression")
        and task.labels != tuple(parse_task(base).labels)
        and len(task.labels) > 1
    ):
        raise UserError(
            f"label={list(task.labels)}: the head answers for {', '.join(parse_task(base).labels)}, in this order; give the columns of the "
            "data set these names, and leave `label` out"
        )
    return task, None if split is None else str(split)


def _replaced(base: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    return {**base, **{k: v for k, v in words.items() if k in READS}}


def words_of(overrides: Sequence[str]) -> dict[str, Any]:
    """`section.key=value` words as plain data."""
    return override({}, list(overrides))


def _check_keys(given: Mapping[str, Any]) -> None:
    strange = [k for k in given if k not in READS and k not in LOOKS]
    for section, keys in WITHIN.items():
        inside = given.get(section, {})
        strange += [f"{section}.{k}" for k in inside if k not in keys] if isinstance(inside, Mapping) else [section]
    if strange:
        known = ", ".join([*READS, *(f"{s}.{k}" for s, keys in WITHIN.items() for k in keys)])
        raise UserError(
            f"{', '.join(strange)}: a trained run is only looked at, nothing of it changes; known keys: {known}"
        )


def _in_order(given: object, question: TargetSpec) -> object:
    """Classes in the order of the head's outputs."""
    names = list(given) if isinstance(given, Mapping | list | tuple) else [given]
    if sorted(map(str, names)) != sorted(question.classes):
        raise UserError(
            f"classes: {', '.join(map(str, names))}: the head gives {', '.join(question.classes)}; write which words of the data set are "
            f"which of them, such as classes={{{question.classes[0]}: [WORD], {question.classes[-1]}: [WORD]}}"
        )
    if isinstance(given, Mapping):
        return {c: given[next(k for k in given if str(k) == c)] for c in question.classes}
    return list(question.classes)


def answers_of(task: Task, data: Dataset, question: TargetSpec, fields: tuple[str, ...]) -> Targets:
    """The answers of another data set.

    Raises:
        UserError: it has no such label, or words that the run does not know; with what to type.
    """
    gone = [n for n in task.labels if n not in data.info.labels]
    if gone:
        has = ", ".join(sorted(data.info.labels)) or "none"
        raise UserError(
            f"{data.path} has no label {', '.join(map(repr, gone))} to be evaluated by (it has: {has}): say which one it is "
            f"({_key_of(task, gone[0])}=NAME), or leave --evaluate out: predictions need no labels"
        )
    targets = read_targets(task, data, fields)
    assert question.kind in ("regression", "survival", "segmentation") or targets.question.classes == question.classes
    return targets


def _key_of(task: Task, label: str) -> str:
    return "time" if label == task.time else "event" if label == task.event else "label"


def name_of(asked: str | None, given: Mapping[str, Any]) -> str:
    """What a data set is called: as asked, or its folder's name.

    Raises:
        UserError: no data set or several, or a name that is no file's.
    """
    path = given.get("data", {}).get("path") if isinstance(given.get("data"), Mapping) else None
    if not path:
        raise UserError("data.path: no data set is given; write data.path=FOLDER")
    if isinstance(path, (list, tuple)):
        each = ", then ".join(f"data.path={p}" for p in path)
        raise UserError(
            f"data.path: one data set is looked at at a time, these are {len(path)}; give the command with {each}"
        )
    name = asked or str(path).rstrip("/").rpartition("/")[2]
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UserError(f"{name!r} is no name of a folder: give --name with letters, digits, dots, dashes alone")
    return name

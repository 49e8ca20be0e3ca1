"""The answers of every sample by the kind of its task: labels of a data set as numbers, and what they were understood as.

Shape letters: N samples of the data set, T numbers of a target, K classes or outputs.
"""

from __future__ import annotations

import csv

import numpy as np

from models.finetuned import TargetSpec
from shards.read.dataset import Dataset
from shards.tables.sides import (
    BINARY,
    SURVIVAL,
    TRUTH,
    Sides,
    examples,
    one_of,
    quoted,
    understood,
)
from trainer.downstream.targets.findings import findings
from trainer.downstream.targets.meaning import Understood
from trainer.downstream.targets.values import SHOWN, coded, values_of
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

__all__ = ["SHOWN", "answers"]


def answers(task: Task, data: Dataset) -> tuple[TargetSpec, np.ndarray, Understood]:
    """What is asked, float64 [N, T] with NaN where the answer is unknown, and which words mean what.

    Raises:
        UserError: values that the task does not know, or whose meaning nothing says; with what to write into the task.
    """
    if task.kind == "multilabel":
        return findings(task, data)
    kinds = {"regression": _regression, "survival": _survival, "segmentation": _segmentation, "retrieval": _retrieval}
    return kinds.get(task.kind, _of_classes)(task, data)


# ---------------------------------------------------------------------------------------------------------------- classes


def _classes(task: Task, data: Dataset, name: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Class names in order, and {value of the label: class}."""
    info = data.info.labels[name]
    if isinstance(task.classes, dict):
        twice = [v for v in set().union(*task.classes.values()) if sum(v in g for g in task.classes.values()) > 1]
        if twice:
            raise UserError(f"task {task.name}: {', '.join(sorted(twice))} stands in several of `classes`")
        return tuple(task.classes), {v: c for c, values in task.classes.items() for v in values}
    if task.classes is not None:
        return task.classes, {c: c for c in task.classes}
    if info.kind == "class":
        names = tuple(c for c in info.classes if c not in task.leave_out)
        return names, {c: c for c in names}
    if task.kind == "ordinal" and task.grades:
        names = tuple(str(g) for g in range(task.grades))
        return names, {c: c for c in names}
    if task.kind == "binary":
        names = _of_numbers(task, data, name)
        return names, {c: c for c in names}
    what = "`grades` (0 to grades - 1) or `classes` in order" if task.kind == "ordinal" else "`classes`"
    raise UserError(f"label '{name}' of {data.path} is a number: task {task.name} needs {what}")


def _of_numbers(task: Task, data: Dataset, name: str) -> tuple[str, ...]:
    """The two values of a yes-or-no label that is packed as numbers: 0 and 1, or what `positive` makes of two others."""
    seen = tuple(v for v in values_of(data, name) if v not in task.leave_out)
    return seen if len(seen) == 2 and task.positive in seen else ("0", "1")


def _of_classes(task: Task, data: Dataset) -> tuple[TargetSpec, np.ndarray, Understood]:
    name = task.labels[0]
    names, groups = _classes(task, data, name)
    if task.kind == "ordinal" and task.classes is None and data.info.labels[name].kind == "class":
        raise UserError(
            f"task {task.name}: the classes of '{name}' ({', '.join(names)}) have no order by themselves; list them in `classes` "
            "from the lowest grade"
        )
    said = Understood()
    if task.kind == "binary":
        sides = _positive(task, data, name, names)
        names, said = (*sides.no, *sides.yes), Understood({name: sides})
    if len(names) < 2:
        raise UserError(f"task {task.name}: label '{name}' of {data.path} has one class only ({', '.join(names)})")
    code_N = coded(task, data, name, {v: float(names.index(g)) for v, g in groups.items()})
    K = 1 if task.kind == "binary" else len(names)
    return TargetSpec(task.kind, K, names), code_N[:, None], said


def _positive(task: Task, data: Dataset, name: str, names: tuple[str, ...]) -> Sides:
    """The positive class and the other one: as `positive` says, or by words that say it themselves."""
    if len(names) != 2 or (task.positive is not None and task.positive not in names):
        raise UserError(
            f"task {task.name} is binary, label '{name}' of {data.path} has {len(names)} classes ({', '.join(names)}); "
            "group them with `classes: {name: [values], name: [values]}`, and let `positive` be one of the two"
        )
    if task.positive is not None:
        assert isinstance(task.positive, str)
        return Sides((task.positive,), tuple(n for n in names if n != task.positive), "as `positive` says")
    found = understood(names, BINARY)
    if found is None or len(found.yes) != 1:
        raise UserError(
            f"task {task.name}: which class of '{name}' is the positive one, {quoted(names)}? Write `positive: {names[0]}` or `positive: "
            f"{names[1]}`; their order says nothing, and no word says it by itself (as {examples(BINARY)} do)"
        )
    return found


# ---------------------------------------------------------------------------------------------------------------- numbers


def _numbers(task: Task, data: Dataset, name: str) -> np.ndarray:
    if data.info.labels[name].kind != "number":
        raise UserError(f"label '{name}' of {data.path} is a class; task {task.name} ({task.kind}) needs a number")
    value_N = data.label_values[name].astype(np.float64)
    for at, what in ((np.flatnonzero(np.isinf(value_N)), "infinite"), (_written_nan(data, name, value_N), "NaN")):
        if len(at):
            raise UserError(
                f"{data.path / 'labels.csv'}: label '{name}' is {what} in {len(at)} samples (row {int(at[0]) + 2}: "
                f"{', '.join(data.keys_of(at[:SHOWN]))}); mend it, or leave the cell empty where the value is not known"
            )
    return value_N


def _written_nan(data: Dataset, name: str, value_N: np.ndarray) -> np.ndarray:
    """Samples whose cell says NaN. An empty cell is a value that is not known; NaN is a computation that went wrong."""
    if not np.isnan(value_N).any():
        return np.empty(0, np.int64)
    with open(data.path / "labels.csv", encoding="utf-8", newline="") as file:
        return np.array(
            [i for i, row in enumerate(csv.DictReader(file)) if row[name] and np.isnan(value_N[i])], np.int64
        )


def _regression(task: Task, data: Dataset) -> tuple[TargetSpec, np.ndarray, Understood]:
    value_NT = np.stack([_numbers(task, data, n) for n in task.labels], 1)
    return TargetSpec("regression", value_NT.shape[1], task.labels), value_NT, Understood()


# --------------------------------------------------------------------------------------------------------------- survival


def _survival(task: Task, data: Dataset) -> tuple[TargetSpec, np.ndarray, Understood]:
    assert task.time
    assert task.event
    time_N = _numbers(task, data, task.time)
    sides = _event(task, data, task.event)
    event_N = coded(task, data, task.event, {w: float(w in sides.yes) for w in (*sides.yes, *sides.no)})
    if (bad := time_N < 0).any():
        at = np.flatnonzero(bad)
        raise UserError(
            f"{data.path / 'labels.csv'}: label '{task.time}' is negative in {len(at)} samples (row {int(at[0]) + 2}: "
            f"{', '.join(data.keys_of(at[:SHOWN]))}); mend it"
        )
    return TargetSpec("survival", 1, ()), np.stack([time_N, event_N], 1), Understood({task.event: sides})


def _event(task: Task, data: Dataset, name: str) -> Sides:
    """Which words of the event's label are the event, and which are censored."""
    words = tuple(w for w in values_of(data, name) if w not in task.leave_out)
    if task.event_value:
        if not one_of(task.event_value, words):
            strange = quoted(w for w in task.event_value if w not in words)
            raise UserError(
                f"task {task.name}: event_value {strange} is no value of '{name}' in {data.path} (it has {quoted(words)}); "
                "write it as it stands there, in quotes"
            )
        return Sides(task.event_value, tuple(w for w in words if w not in task.event_value), "as `event_value` says")
    if not words:
        return Sides((), (), "no answer")
    found = understood(words, (TRUTH,) if task.censored else SURVIVAL)
    if found is None:
        raise UserError(_which(task, data, name, words))
    return Sides(found.no, found.yes, "as `censored: true` says") if task.censored else found


def _which(task: Task, data: Dataset, name: str, words: tuple[str, ...]) -> str:
    """The question which word is the event."""
    where = f"task {task.name}: label '{name}' of {data.path} is {quoted(words[:SHOWN])}{', ...' if len(words) > SHOWN else ''}"
    if task.censored and understood(words, SURVIVAL) is not None:
        return f"{where}: these words say themselves which is the event; leave `censored: true` out, or name it with `event_value:`"
    asked = (
        "event_value: [WORD, ...]" if len(words) > 2 else f"event_value: '{words[-1]}'`, or `event_value: '{words[0]}'"
    )
    hint = "; R's survival package writes 1 for censored and 2 for the event" if set(words) == {"1", "2"} else ""
    return (
        f"{where}: which of them is the event? Write `{asked}` into the task{hint}. All others then are censored (leave_out: [WORD] takes "
        f"samples out); their order says nothing, and only words like {examples(SURVIVAL)} say it by themselves"
    )


# ------------------------------------------------------------------------------------------------------------------ masks


def _segmentation(task: Task, data: Dataset) -> tuple[TargetSpec, np.ndarray, Understood]:
    names = tuple(m.name for m in task.masks)
    question = TargetSpec("segmentation", len(names), names if len(names) > 1 else ())
    return question, np.zeros((len(data), 1)), Understood()


def _retrieval(task: Task, data: Dataset) -> tuple[TargetSpec, np.ndarray, Understood]:
    """What is right follows from the reports themselves."""
    return TargetSpec("retrieval", 2, ("report", "image")), np.zeros((len(data), 1)), Understood()

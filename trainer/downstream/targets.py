"""What a task asks, read from a data set's labels: one row of numbers a sample, NaN where the answer is unknown.

Shape letters: N samples of the data set, T numbers of a target, K classes or outputs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from models.downstream import Question
from shards.reader import Dataset
from trainer.downstream.task import Task
from trainer.errors import UserError

SHOWN = 5


@dataclass(frozen=True)
class Targets:
    """value_NT float64 of all samples of the data set; `asked_N` says which take part (labelled, with what the method reads)."""

    question: Question
    value_NT: np.ndarray
    asked_N: np.ndarray
    left_out: dict[str, int]
    """Why samples take no part, and how many."""
    notes: tuple[str, ...] = ()
    """What else was decided about samples, for a person."""
    own: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and deviation of the split that is looked at, where it is standardised by itself."""

    def of(self, index: int) -> np.ndarray:
        return self.value_NT[index]


def read_targets(task: Task, data: Dataset, fields: tuple[str, ...]) -> Targets:
    """Targets of every sample.

    Args:
        fields: what a sample must have (at least the image side); others may be missing.

    Raises:
        UserError: labels that do not exist, values that the task does not know (with their samples), splits without answer.
    """
    problems = [
        f"{data.path} has no label '{n}' (it has: {', '.join(sorted(data.info.labels)) or 'none'}); mend `label` in task {task.name}"
        for n in task.labels
        if n not in data.info.labels
    ]
    problems += [
        f"{data.path} has no field '{name}' (it has: {', '.join(sorted(data.info.fields))}); set `mask` in task {task.name}"
        for name in (task.mask_fields if task.kind == "segmentation" else ())
        if name not in data.info.fields
    ]
    if problems:
        raise UserError(problems)
    question, value_NT = _KINDS[task.kind](task, data)
    return _with_asked(task, data, question, value_NT, fields)


def _with_asked(
    task: Task, data: Dataset, question: Question, value_NT: np.ndarray, fields: tuple[str, ...]
) -> Targets:
    left_out: dict[str, int] = {}
    notes: list[str] = []
    asked_N = np.ones(len(data), bool)
    known_N = ~np.isnan(value_NT).any(1) if task.kind == "survival" else ~np.isnan(value_NT).all(1)
    if task.kind != "segmentation":
        left_out["no answer in " + ", ".join(task.labels)] = int((~known_N).sum())
        asked_N &= known_N
    else:
        asked_N &= _with_masks(task, data, left_out, notes)
    for name in fields:
        has_N = np.array([data[i].has(name) for i in range(len(data))])
        left_out[f"no {name}"] = int((asked_N & ~has_N).sum())
        asked_N &= has_N
    return Targets(question, value_NT, asked_N, {k: n for k, n in left_out.items() if n}, tuple(notes))


def _with_masks(task: Task, data: Dataset, left_out: dict[str, int], notes: list[str]) -> np.ndarray:
    """Which samples have an answer [N], by `mask_missing`.

    Raises:
        UserError: samples that have some of several masks only, where the task does not say what that means.
    """
    fields = task.mask_fields
    has_NF: np.ndarray = np.array([[data[i].has(f) for f in fields] for i in range(len(data))]).reshape(-1, len(fields))
    lacking = {f: int(n) for f, n in zip(fields, (~has_NF).sum(0), strict=True) if n}
    if task.mask_missing == "empty":
        notes += [f"{n} samples without {f}: taken as empty masks (mask_missing=empty)" for f, n in lacking.items()]
        return np.ones(len(data), bool)
    partly = np.flatnonzero(has_NF.any(1) & ~has_NF.all(1))
    if len(partly) and task.mask_missing == "refuse":
        raise UserError(
            f"{data.path}: {len(partly)} samples have some of the masks {', '.join(fields)} and lack others "
            f"({', '.join(f'{n} lack {f}' for f, n in lacking.items())}; {', '.join(data.keys_of(partly[:SHOWN]))}): say what that "
            f"means in task {task.name}: mask_missing=empty (nothing of it in the image) or mask_missing=leave_out"
        )
    whole_N: np.ndarray = np.asarray(has_NF.all(1))
    left_out[f"no {' or '.join(fields)}"] = int((~whole_N).sum())
    return whole_N


# ------------------------------------------------------------------------------------------------------------------ kinds


def _words(data: Dataset, name: str) -> np.ndarray:
    """A label as words [N], "" where missing; numbers that are whole are written so."""
    info, values = data.info.labels[name], data.label_values[name]
    if info.kind == "class":
        return np.array([info.classes[v] if v >= 0 else "" for v in values.tolist()], dtype=object)
    return np.array(["" if np.isnan(v) else f"{v:g}" for v in values.tolist()], dtype=object)


def _grouped(task: Task, data: Dataset, name: str, names: tuple[str, ...], groups: dict[str, str]) -> np.ndarray:
    """Class codes [N] as float, NaN for missing or left out."""
    words_N = _words(data, name)
    known = set(groups) | set(task.leave_out) | {""}
    if strange := sorted(set(words_N.tolist()) - known):
        lines = []
        for value in strange[:SHOWN]:
            at = np.flatnonzero(words_N == value)
            keys = ", ".join(data.keys_of(at[:SHOWN]))
            lines.append(
                f"{data.path / 'labels.csv'}: label '{name}' is '{value}' in {len(at)} samples (row {int(at[0]) + 2}: {keys}"
                f"{', ...' if len(at) > SHOWN else ''}), which task {task.name} does not know ({', '.join(sorted(groups))}); "
                f"mend the label, name the value in `classes`, or leave these samples out (leave_out: ['{value}'])"
            )
        if len(strange) > SHOWN:
            lines.append(f"and {len(strange) - SHOWN} more values")
        raise UserError(lines)
    code = {value: float(names.index(group)) for value, group in groups.items() if value not in task.leave_out}
    return np.array([code.get(w, np.nan) for w in words_N.tolist()])


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
        return ("0", "1"), {"0": "0", "1": "1"}
    what = "`grades` (0 to grades - 1) or `classes` in order" if task.kind == "ordinal" else "`classes`"
    raise UserError(f"label '{name}' of {data.path} is a number: task {task.name} needs {what}")


def _of_classes(task: Task, data: Dataset) -> tuple[Question, np.ndarray]:
    name = task.labels[0]
    names, groups = _classes(task, data, name)
    if task.kind == "ordinal" and task.classes is None and data.info.labels[name].kind == "class":
        raise UserError(
            f"task {task.name}: the classes of '{name}' ({', '.join(names)}) have no order by themselves; list them in `classes` "
            "from the lowest grade"
        )
    if task.kind == "binary":
        positive = task.positive or names[-1]
        if len(names) != 2 or positive not in names:
            raise UserError(
                f"task {task.name} is binary, label '{name}' has {len(names)} classes ({', '.join(names)}); "
                "group them with `classes: {name: [values], name: [values]}`, and let `positive` be one of the two"
            )
        names = (next(n for n in names if n != positive), positive)
    if len(names) < 2:
        raise UserError(f"task {task.name}: label '{name}' of {data.path} has one class only ({', '.join(names)})")
    code_N = _grouped(task, data, name, names, groups)
    K = 1 if task.kind == "binary" else len(names)
    return Question(task.kind, K, names), code_N[:, None]


def _multilabel(task: Task, data: Dataset) -> tuple[Question, np.ndarray]:
    columns = []
    for name in task.labels:
        info = data.info.labels[name]
        names = info.classes if info.kind == "class" else ("0", "1")
        if len(names) != 2:
            raise UserError(
                f"task {task.name}: label '{name}' of {data.path} has {len(names)} classes, multilabel needs two"
            )
        columns.append(_grouped(task, data, name, tuple(names), {c: c for c in names}))
    return Question("multilabel", len(columns), task.labels), np.stack(columns, 1)


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


def _regression(task: Task, data: Dataset) -> tuple[Question, np.ndarray]:
    value_NT = np.stack([_numbers(task, data, n) for n in task.labels], 1)
    return Question("regression", value_NT.shape[1], task.labels), value_NT


def _survival(task: Task, data: Dataset) -> tuple[Question, np.ndarray]:
    assert task.time
    assert task.event
    time_N = _numbers(task, data, task.time)
    info = data.info.labels[task.event]
    names = tuple(info.classes) if info.kind == "class" else ("0", "1")
    if len(names) != 2:
        raise UserError(f"label '{task.event}' of {data.path} has {len(names)} classes; an event was seen, or not")
    event_N = _grouped(task, data, task.event, names, {c: c for c in names})
    if task.censored:
        event_N = 1 - event_N
    if (bad := time_N < 0).any():
        at = np.flatnonzero(bad)
        raise UserError(
            f"{data.path / 'labels.csv'}: label '{task.time}' is negative in {len(at)} samples (row {int(at[0]) + 2}: "
            f"{', '.join(data.keys_of(at[:SHOWN]))}); mend it"
        )
    return Question("survival", 1, ()), np.stack([time_N, event_N], 1)


def _segmentation(task: Task, data: Dataset) -> tuple[Question, np.ndarray]:
    names = tuple(m.name for m in task.masks)
    return Question("segmentation", len(names), names if len(names) > 1 else ()), np.zeros((len(data), 1))


_KINDS = {
    "binary": _of_classes,
    "multiclass": _of_classes,
    "ordinal": _of_classes,
    "multilabel": _multilabel,
    "regression": _regression,
    "survival": _survival,
    "segmentation": _segmentation,
}


# ------------------------------------------------------------------------------------------------------- fitted on training


def fitted(task: Task, targets: Targets, train: np.ndarray) -> Targets:
    """With what the training samples give: mean and deviation of regression targets, imputed values.

    `train` are the indices of the training samples in use.
    """
    if task.kind != "regression":
        return targets
    known_MT = targets.value_NT[train]
    mean_K, std_K = np.nanmean(known_MT, 0), np.nanstd(known_MT, 0)
    constant = [n for n, s in zip(task.labels, std_K, strict=True) if not s > 0]
    if constant:
        raise UserError(
            f"task {task.name}: {', '.join(constant)} does not vary over the {len(train)} training samples: nothing can be learned"
        )
    value_NT = _filled(task, targets.value_NT, train)
    question = replace(targets.question, mean_K=tuple(mean_K.tolist()), std_K=tuple(std_K.tolist()))
    return replace(targets, question=question, value_NT=value_NT)


def _filled(task: Task, value_NT: np.ndarray, at: np.ndarray) -> np.ndarray:
    """With unknown targets of the samples `at` filled by what the known ones among them say, if the task asks for it."""
    if task.impute == "none":
        return value_NT
    known_MT = value_NT[at]
    fill_K = np.nanmean(known_MT, 0) if task.impute == "mean" else np.nanmedian(known_MT, 0)
    filled_NT = value_NT.copy()
    filled_NT[at] = np.where(np.isnan(known_MT), fill_K, known_MT)
    return filled_NT


def looked_at(task: Task, targets: Targets, at: np.ndarray, split: str) -> Targets:
    """Targets for a look at the samples `at` of a split: as they are, or with `standardise: each_split` filled and scaled by their own.

    Raises:
        UserError: a target that is unknown in the whole split, or does not vary in it.
    """
    if task.standardise == "train" or task.kind != "regression":
        return targets
    value_MT = targets.value_NT[at]
    known_T = ~np.isnan(value_MT).all(0)
    std_T = np.array([np.nanstd(c) if k else 0.0 for c, k in zip(value_MT.T, known_T, strict=True)])
    if constant := [n for n, s in zip(task.labels, std_T, strict=True) if not s > 0]:
        raise UserError(
            f"standardise=each_split: {', '.join(constant)} does not vary over split '{split}'; use standardise=train"
        )
    own = (tuple(np.nanmean(value_MT, 0).tolist()), tuple(std_T.tolist()))
    return replace(targets, value_NT=_filled(task, targets.value_NT, at), own=own)


def check_split(task: Task, targets: Targets, indices: np.ndarray, split: str) -> list[str]:
    """What is wrong with a split: empty, one class only, no event."""
    if not len(indices):
        return [f"split '{split}' has no sample that task {task.name} can use: {_why(targets)}"]
    value_NT = targets.value_NT[indices]
    if task.kind in ("binary", "multiclass", "ordinal"):
        seen = np.unique(value_NT[:, 0])
        if len(seen) < 2:
            only = targets.question.classes[int(seen[0])]
            return [
                f"split '{split}' has one class only ({only}, {len(indices)} samples): a {task.kind} task cannot be "
                f"{'learned' if split == task.data.train else 'measured'} on it; split again (python -m shards split), or take more labels"
            ]
    if task.kind == "multilabel" and split == task.data.train:
        single = [n for n, c in zip(task.labels, value_NT.T, strict=True) if len(np.unique(c[~np.isnan(c)])) < 2]
        if single:
            return [f"split '{split}' has one value only for {', '.join(single)}: leave these labels out, or take more"]
    if task.kind == "survival" and not value_NT[:, 1].any():
        return [
            f"split '{split}' has no event among {len(indices)} samples: a Cox model has nothing to learn or to rank"
        ]
    return []


def _why(targets: Targets) -> str:
    return "; ".join(f"{n} samples: {why}" for why, n in _items(targets)) or "it is empty"


def _items(targets: Targets) -> Iterator[tuple[str, int]]:
    yield from targets.left_out.items()

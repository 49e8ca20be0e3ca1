"""What a task asks, read from a data set's labels: one row of numbers a sample, NaN where the answer is unknown.

Shape letters: N samples of the data set, T numbers of a target, K classes or outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from models.finetuned import TargetSpec
from shards.errors import typed
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from trainer.downstream.targets.answers import SHOWN, answers
from trainer.downstream.targets.meaning import Understood
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

SMALL = 256
"""Bytes: only so small a member is looked into for whether anything is in it."""


@dataclass(frozen=True)
class Targets:
    """value_NT float64 of all samples of the data set; `used_N` says which take part (labelled, with what the method reads)."""

    question: TargetSpec
    value_NT: np.ndarray
    used_N: np.ndarray
    left_out: dict[str, int]
    """Why samples take no part, and how many."""
    notes: tuple[str, ...] = ()
    """What else was decided about samples, for a person."""
    own: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and deviation of the split that is looked at, where it is standardised by itself."""
    horizons: tuple[float, ...] = ()
    """Survival: times at which metrics look, one or more, rising."""
    understood: Understood = field(default_factory=Understood)
    """Which words were taken for what."""

    def of(self, index: int) -> np.ndarray:
        return self.value_NT[index]


def read_targets(task: Task, data: Dataset, fields: tuple[str, ...]) -> Targets:
    """Targets of every sample.

    Args:
        fields: what a sample must have (at least the image side); others may be missing.

    Raises:
        UserError: labels that do not exist, values that the task does not know (with their samples), splits without answer.
    """
    has = ", ".join(sorted(data.info.labels)) or "none"
    keys = {n: next((k for k in ("time", "event") if getattr(task, k) == n), "label") for n in task.labels}
    problems = [
        f"{data.path} has no label '{n}' (it has: {has}); mend `{key}` in task {task.name}, or say it here: {key}=NAME"
        for n, key in keys.items()
        if n not in data.info.labels
    ]
    problems += [
        f"{data.path} has no field '{name}' (it has: {', '.join(sorted(data.info.fields))}); set `mask` in task {task.name}"
        for name in (task.mask_fields if task.kind == "segmentation" else ())
        if name not in data.info.fields
    ]
    if problems:
        raise UserError(problems)
    question, value_NT, understood = answers(task, data)
    return replace(_with_asked(task, data, question, value_NT, fields), understood=understood)


def unasked(task: Task, data: Dataset, question: TargetSpec, fields: tuple[str, ...]) -> Targets:
    """Targets of samples without answers: all unknown; those take part that have what the method reads."""
    T = 2 if question.kind == "survival" else len(task.labels) or 1
    value_NT = np.full((len(data), 1 if question.kind == "segmentation" else T), np.nan)
    left_out: dict[str, int] = {}
    return Targets(question, value_NT, _with_fields(data, fields, np.ones(len(data), bool), left_out), left_out)


def _with_fields(data: Dataset, fields: tuple[str, ...], used_N: np.ndarray, left_out: dict[str, int]) -> np.ndarray:
    """Those of the samples that have all of `fields`; of the others why, and how many."""
    for name in fields:
        has_N = np.array([_there(data[i], name) for i in range(len(data))])
        if n := int((used_N & ~has_N).sum()):
            left_out[f"no {name}"] = n
        used_N = used_N & has_N
    return used_N


def _with_asked(
    task: Task, data: Dataset, question: TargetSpec, value_NT: np.ndarray, fields: tuple[str, ...]
) -> Targets:
    left_out: dict[str, int] = {}
    notes: list[str] = []
    used_N = np.ones(len(data), bool)
    known_N = ~np.isnan(value_NT).any(1) if task.kind == "survival" else ~np.isnan(value_NT).all(1)
    if task.kind != "segmentation":
        left_out["no answer in " + ", ".join(task.labels)] = int((~known_N).sum())
        used_N &= known_N
    else:
        used_N &= _with_masks(task, data, left_out, notes)
    used_N = _with_fields(data, fields, used_N, left_out)
    return Targets(question, value_NT, used_N, {k: n for k, n in left_out.items() if n}, tuple(notes))


def _there(record: ShardRecord, name: str) -> bool:
    """Whether a sample has a field with something in it: of a bag without rows nothing can be said."""
    return record.has(name) and (record.size(name) > SMALL or 0 not in record.shape(name))


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


# ------------------------------------------------------------------------------------------------------- fitted on training


def fitted(task: Task, targets: Targets, train: np.ndarray) -> Targets:
    """With what the training samples give: mean and deviation of regression targets, imputed values, edges of intervals of time.

    `train` are the indices of the training samples in use.
    """
    if task.kind == "survival":
        return replace(targets, question=_of_loss(task, targets, train))
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


def _of_loss(task: Task, targets: Targets, train: np.ndarray) -> TargetSpec:
    """What is asked of a head by the loss of a survival task."""
    loss, asked = task.output.survival, targets.question
    if loss == "cox":
        return asked
    if loss == "intervals":
        edges = _edges(task, targets.value_NT[train])
        return replace(asked, outputs=len(edges) + 1, edges=edges, alpha=task.output.alpha)
    return replace(asked, outputs=2, distribution=loss, log_time=_log_time(task, targets, train))


def with_horizons(task: Task, targets: Targets, train: np.ndarray) -> Targets:
    """Survival: with the deciles of the times of events in the training split, whatever share of its labels is learned from."""
    if task.kind != "survival":
        return targets
    value_M2 = targets.value_NT[train]
    deciles = np.quantile(value_M2[value_M2[:, 1] == 1, 0], np.arange(1, 10) / 10)
    return replace(targets, horizons=tuple(np.unique(deciles).tolist()))


def _log_time(task: Task, targets: Targets, train: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of the logarithms of the training samples' times.

    Raises:
        UserError: times of 0, in whatever split, whose logarithm is none.
    """
    time_N = targets.value_NT[targets.used_N, 0]
    if zeros := int((time_N <= 0).sum()):
        raise UserError(
            f"task {task.name}: output.survival={task.output.survival}: {zeros} samples have a time of 0 or less, which has no logarithm; "
            "mend the times, or use output.survival=cox"
        )
    log_M = np.log(targets.value_NT[train, 0])
    return float(log_M.mean()), float(log_M.std()) or 1.0


def _edges(task: Task, value_M2: np.ndarray) -> tuple[float, ...]:
    """Quantiles of the times of events: as many intervals as asked, with equally many events in each."""
    time_E = value_M2[value_M2[:, 1] == 1, 0]
    shares = np.arange(1, task.output.intervals) / task.output.intervals
    edges = tuple(float(np.float32(e)) for e in np.quantile(time_E, shares)) if len(time_E) else ()
    if len(time_E) < task.output.intervals or len({*edges, float(np.float32(time_E.min()))}) <= len(edges):
        raise UserError(
            f"task {task.name}: output.intervals={task.output.intervals}: {len(value_M2)} training samples have {len(time_E)} events at "
            f"{len(set(time_E.tolist()))} times, too few to part; give fewer intervals, or output.survival=cox"
        )
    return edges


def _filled(task: Task, value_NT: np.ndarray, at: np.ndarray) -> np.ndarray:
    """With unknown targets of the samples `at` filled by what the known ones among them say, if the task asks for it."""
    if task.impute == "none":
        return value_NT
    known_MT = value_NT[at]
    fill_K = np.nanmean(known_MT, 0) if task.impute == "mean" else np.nanmedian(known_MT, 0)
    filled_NT = value_NT.copy()
    filled_NT[at] = np.where(np.isnan(known_MT), fill_K, known_MT)
    return filled_NT


def targets_of_split(task: Task, targets: Targets, at: np.ndarray, split: str) -> Targets:
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
                f"{'learned' if split == task.data.train else 'measured'} on it; split again "
                f"(python -m shards split DIR --stratify {typed(task.label)}), or take more labels"
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

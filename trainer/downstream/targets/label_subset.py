"""Which training patients' labels are used: nested shares, or so many patients of each class."""

from __future__ import annotations

import math

import numpy as np

from shards.read.dataset import Dataset
from trainer.downstream.targets.read import Targets
from trainer.downstream.task.schema import Task
from trainer.errors import UserError


def labelled(task: Task, data: Dataset, targets: Targets, train: np.ndarray, seed: int) -> np.ndarray:
    """Indices of the training samples in use, ascending: all samples of the chosen patients.

    Patients of each class stand in an order that a draw's number decides, and a share takes the first of them, rounded up: 1 %
    lies within 10 %, and no class is lost. Patients of several classes count for their highest, without classes (numbers,
    survival, masks) all stand in one order (survival: those with an event apart).

    Raises:
        UserError: more shots than patients of a class.
    """
    p = task.protocol
    if p.shots is None and p.fraction == 1.0:
        return train
    patients_N = np.asarray(data.patients_of(train), dtype=str)
    names_P, of_N = np.unique(patients_N, return_inverse=True)
    stratum_P = np.full(len(names_P), -1, np.int64)
    np.maximum.at(stratum_P, of_N, _strata(task, targets, train))
    draw = seed if p.draw == "seed" else int(p.draw)
    chosen, short = [], []
    for stratum in np.unique(stratum_P):
        here = np.flatnonzero(stratum_P == stratum)
        order = np.random.default_rng([draw, int(stratum) + 1, 20_301]).permutation(here)
        take = p.shots if p.shots is not None else math.ceil(p.fraction * len(here) - 1e-9)
        if take > len(here):
            short.append(
                f"class '{targets.question.classes[stratum]}' has {len(here)} training patients, protocol.shots asks for {take}"
            )
        chosen.append(order[:take])
    if short:
        raise UserError([*short, "take fewer shots"])
    return train[np.isin(of_N, np.concatenate(chosen))]


def _strata(task: Task, targets: Targets, train: np.ndarray) -> np.ndarray:
    if task.kind in ("binary", "multiclass", "ordinal"):
        return targets.value_NT[train, 0].astype(np.int64)
    if task.kind == "survival":
        return targets.value_NT[train, 1].astype(np.int64)
    return np.zeros(len(train), np.int64)

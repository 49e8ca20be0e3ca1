"""Embeddings of people whom the encoder did not learn from, one vector a person, by a finished run or its architecture at random.

Shape letters: S samples (images), N people, D width.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.contract.start_files import without_start_files
from models.registry import get_method
from shards.format.info import SPLITS
from shards.read.dataset import Dataset
from shards.tables.identity import few, one_spelling, person
from trainer.downstream.init import Init, check_fields
from trainer.errors import UserError
from trainer.runtime import alone
from trainer.state.finished import Finished

if TYPE_CHECKING:
    from trainer.downstream.probes.features import Extracted

PerPerson = Literal["mean", "first"]
BATCH = 32


@dataclass(frozen=True)
class HeldBack:
    """People of the tested split: names_N as the data set first spells them, person_S their number for each sample of the split.

    `elsewhere` holds the forms of people of all other splits.
    """

    names_N: tuple[str, ...]
    person_S: np.ndarray
    elsewhere: frozenset[str]
    notes: tuple[str, ...]


def held_back(data: Dataset, split: str, run: Finished, random: bool) -> HeldBack:
    """The people of a split, none of whom may stand in another one or have been learned from.

    Raises:
        UserError: some are, counted and named.
        DataError: no such split, or an empty one.
    """
    patients = data.patients_of(data.subset(split).indices)
    spelling = one_spelling(patients)
    names = [*dict.fromkeys(spelling.values())]
    others = frozenset(
        person(p)
        for s in SPLITS
        if s != split and data.info.splits.get(s)
        for p in data.patients_of(data.subset(s).indices)
    )
    problems, notes = list[str](), list[str]()
    if both := [n for n in names if person(n) in others]:
        problems.append(f"{data.path}: {len(both)} of {len(names)} people of split '{split}' stand in another split too ({few(both)}); "
                        "split the data set by patient")  # fmt: skip
    if not random and not run.trained_on:
        notes.append(f"NOT CHECKED for leaks: {run.path} has no list of its patients (patients.txt)")
    learned, chosen = ([], []) if random else run.overlap(names)
    if learned:
        problems.append(f"{len(learned)} of {len(names)} people of split '{split}' were in the pre-training of {run.path} "
                        f"({few(learned)}): ""test another split, or pre-train without them")  # fmt: skip
    if chosen:
        notes.append(f"{len(chosen)} people were held back in pre-training to choose its weights ({few(chosen)})")
    if problems:
        raise UserError(problems)
    number = {n: i for i, n in enumerate(names)}
    return HeldBack((*names,), np.array([number[spelling[p]] for p in patients]), others, (*notes,))


def source_of(run: Finished, random: bool) -> Init:
    """The run as an encoder to start from; `random`: its architecture alone."""
    options = without_start_files(get_method(run.method_name).Options, run.options)
    return Init(run.method_name, options, run.schema, run, not random, None)


def embed(
    source: Init, data: Dataset, split: str, people: HeldBack, per_person: PerPerson, cache: Path, seed: int = 0
) -> np.ndarray:
    """float64 [N, D] of the people in order: the mean of their samples' features, or those of the first sample.

    Raises:
        UserError: a method without an image side, data that it was not built for, features that are not finite.
    """
    x_SD = features(source, data, split, cache, seed).x_ND.astype(np.float64)
    if per_person == "first":
        return x_SD[_first(people.person_S)]
    sum_ND = np.zeros((len(people.names_N), x_SD.shape[1]))
    np.add.at(sum_ND, people.person_S, x_SD)
    return sum_ND / np.bincount(people.person_S)[:, None]


def features(source: Init, data: Dataset, split: str, cache: Path | None, seed: int = 0) -> Extracted:
    """Pooled features of the images of a split, by the encoder's image side.

    Raises:
        UserError: a method without an image side, data that it was not built for, features that are not finite.
    """
    from models.finetuned import image_side
    from trainer.data import check_images, schema_of
    from trainer.downstream.probes.features import extract

    method = source.build(seed)
    fields = image_side(method)
    if not fields:
        raise UserError(f"{source.method_name} reads {', '.join(method.inputs)}: it has no image side")
    check_images([data], fields)
    check_fields(source, fields, schema_of(data))
    method.inputs = fields
    runtime = alone()
    method.to(runtime.device)
    return extract(method, data, split, runtime, batch=BATCH, workers=_workers(), cache=cache)


def _first(person_S: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.unique(person_S, return_index=True)[1]


def _workers() -> int:
    return min(4, len(os.sched_getaffinity(0)))

"""Which cases get maps, and whether the patches of slides have places to draw them at.

Shape letters: N samples of a split.
"""

from __future__ import annotations

import numpy as np

from models.contract import Method, TargetSpec
from models.contract.attention import own_maps
from models.finetuned import make_head
from shards.errors import DataError, Problem
from shards.read.dataset import Dataset
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

PATCHES, COORDS, OF_SLIDE = "patches", "coords", "coords_slide"


def fix(key: str) -> str:
    return f"pack the slides with a field `coords` (x and y of each row of `patches`; docs/data.md), or leave {key} out"


def chosen_slides(task: Task, indices_N: np.ndarray, number: int | None = None) -> np.ndarray:
    """`output.attention` of these samples, or `number`, in their order: drawn by `bootstrap.seed`, and fewer lie within more."""
    drawn = np.random.default_rng([task.bootstrap.seed, 4_177]).permutation(len(indices_N))
    return np.sort(indices_N[drawn[: task.output.attention if number is None else number]])


def check_maps(task: Task, encoder: Method, question: TargetSpec, data: Dataset, indices_N: np.ndarray) -> None:
    """Refuses maps that nothing would weigh, or that have no place.

    Raises:
        UserError: a system without attention over the patches of a slide, or a head that takes it away.
        DataError: slides without coordinates, or with another number of them than of patches; all at once.
    """
    if task.output.gradients:
        check_gradients(task, encoder, data, indices_N)
    if not task.output.attention:
        return
    if PATCHES not in encoder.inputs:
        raise UserError(
            f"output.attention: {encoder.name} reads {', '.join(encoder.inputs)}, and maps are of the patches of a slide; "
            "leave it out, or use a system of slides"
        )
    o = task.output
    head = make_head(encoder, question, 8, 8, head=o.head, norm=o.norm, hidden=o.hidden, dropout=o.dropout)
    if not own_maps(head) and not own_maps(encoder):
        if o.head == "auto":
            raise UserError(
                f"output.attention: {encoder.name} weighs no patches of a slide; use a system that does (docs/evaluation.md, Attention "
                "maps), or leave output.attention out"
            )
        raise UserError(
            f"output.attention: nothing weighs the patches of a slide in {encoder.name} with output.head={o.head}; use output.head=auto, "
            "another system (docs/evaluation.md, Attention maps), or leave output.attention out"
        )
    _check_places("output.attention", data, chosen_slides(task, indices_N))


def check_gradients(task: Task, encoder: Method, data: Dataset, indices_N: np.ndarray) -> None:
    """Refuses contributions of patches that have no place; cells of an image have one.

    Raises:
        DataError: as `check_maps`.
    """
    if PATCHES in encoder.inputs:
        _check_places("output.gradients", data, chosen_slides(task, indices_N, task.output.gradients))


def _check_places(key: str, data: Dataset, slides_N: np.ndarray) -> None:
    if COORDS not in data.info.fields:
        raise DataError(
            Problem(f"{key}: there is no field '{COORDS}', so a map has no place", str(data.path), fix(key))
        )
    problems = [p for i in slides_N.tolist() if (p := _problem(key, data, i)) is not None]
    if problems:
        raise DataError(problems)


def _problem(key: str, data: Dataset, index: int) -> Problem | None:
    record = data[index]
    where = f"{data.path}, sample '{record.key}'"
    if not record.has(COORDS):
        return Problem(f"{key}: the slide has no '{COORDS}'", where, fix(key))
    if record.has(OF_SLIDE) and (n := int(record.read(OF_SLIDE).max()) + 1) > 1:
        what = f"{key}: the bag has patches of {n} slides, which a picture would lay over one another"
        return Problem(what, where, f"pack each slide as a sample (docs/data.md), or leave {key} out")
    patches, coords = record.shape(PATCHES)[0], record.shape(COORDS)
    if coords != (patches, 2):
        return Problem(
            f"{key}: '{COORDS}' has the shape {coords} for {patches} patches, not ({patches}, 2)", where, fix(key)
        )
    return None

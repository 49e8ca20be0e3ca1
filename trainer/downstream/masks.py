"""Masks looked at before training: their sizes, their values, and whether there is anything in them."""

from __future__ import annotations

import numpy as np

from shards.reader import Dataset
from trainer.downstream.task import Task
from trainer.errors import UserError

SHOWN = 5


def check_masks(task: Task, data: Dataset, splits: dict[str, np.ndarray]) -> None:
    """Reads the masks of all samples that take part.

    Raises:
        UserError: masks of another size than their images, with several values that could be the object, or splits without any
            object; all at once, with files and rows.
    """
    sizes, problems, seen = [], [], dict[int, list[int]]()
    for split, indices in splits.items():
        objects = 0
        for index in indices.tolist():
            record = data[index]
            image, mask = record.shape("image")[:2], record.shape(task.mask)[:2]
            if tuple(image) != tuple(mask):
                size = f"{mask[0]} x {mask[1]} pixels, its image {image[0]} x {image[1]}"
                sizes.append(f"{where(data, index)}: {task.mask} is {size}")
                continue
            found = np.unique(_flat(record.read(task.mask))).tolist()
            for value in found:
                seen.setdefault(value, []).append(index)
            objects += any(v in task.mask_values if task.mask_values else v > 0 for v in found)
        if not objects and not sizes:
            problems.append(
                f"split '{split}': none of {len(indices)} masks of {data.path} holds any object "
                f"({'values ' + str(list(task.mask_values)) if task.mask_values else 'pixels above 0'}): nothing can be "
                f"{'learned' if split == task.data.train else 'measured'} on it; split again, or mend mask_values"
            )
    if sizes:
        more = f"and {len(sizes) - SHOWN} more" if len(sizes) > SHOWN else ""
        problems += [
            *sizes[:SHOWN],
            *([more] if more else []),
            "mend these masks, or leave their samples out, and pack again",
        ]
    problems += _values(task, data, seen)
    if problems:
        raise UserError(problems)


def _values(task: Task, data: Dataset, seen: dict[int, list[int]]) -> list[str]:
    """Several values above 0: smoothed edges, several classes, or masks of two makers; which are the object is for the task to say."""
    above = sorted(v for v in seen if v > 0)
    if task.mask_values or len(above) < 2:
        return []
    lines = [
        f"{where(data, seen[v][0])}: {task.mask} holds the value {v}, as do {len(seen[v])} masks" for v in above[:SHOWN]
    ]
    more = [f"and {len(above) - SHOWN} more values"] if len(above) > SHOWN else []
    return [
        *lines, *more,
        f"a mask has one value above 0, these have {len(above)}: mend them, or say in task {task.name} which are the object, "
        f"for example mask_values=[{above[-1]}]",
    ]  # fmt: skip


def where(data: Dataset, index: int) -> str:
    """A sample's place for a person: file, row and key."""
    return f"{data.path / 'splits.csv'} row {index + 2} ({data.keys_of(np.array([index]))[0]})"


def _flat(mask: np.ndarray) -> np.ndarray:
    return mask if mask.ndim == 2 else mask.max(-1)

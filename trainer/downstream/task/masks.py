"""Masks looked at before training: their sizes, their values, and whether there is anything in them."""

from __future__ import annotations

import numpy as np

from models.contract.masks import MaskField
from models.view import one_channel
from shards.read.dataset import Dataset
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

SHOWN = 5


def check_masks(task: Task, data: Dataset, splits: dict[str, np.ndarray]) -> None:
    """Reads the masks of all samples that take part.

    Raises:
        UserError: masks of another size than their images, with several values that could be the object, or splits without any
            object of a structure; all at once, with files and rows.
    """
    sizes, problems, seen = [], [], dict[str, dict[int, list[int]]]()
    for split, indices in splits.items():
        objects = dict.fromkeys(task.masks, 0)
        for index in indices.tolist():
            for name in task.mask_fields:
                if not data[index].has(name):
                    continue  # an empty one, by mask_missing
                wrong, found = _looked_at(data, index, name)
                sizes += wrong
                for value in found:
                    seen.setdefault(name, {}).setdefault(value, []).append(index)
                for m in (m for m in task.masks if m.field == name):
                    objects[m] += any(v in m.values if m.values else v > 0 for v in found)
        if not sizes:
            problems += [_nothing(task, data, split, len(indices), m) for m, n in objects.items() if not n]
    if sizes:
        more = f"and {len(sizes) - SHOWN} more" if len(sizes) > SHOWN else ""
        problems += [
            *sizes[:SHOWN],
            *([more] if more else []),
            "mend these masks, or leave their samples out, and pack again",
        ]
    for name in {m.field: None for m in task.masks if not m.values}:
        problems += _values(task, data, name, seen.get(name, {}))
    if problems:
        raise UserError(problems)


def _looked_at(data: Dataset, index: int, name: str) -> tuple[list[str], list[int]]:
    """What is wrong with a mask's size, or else the values in it."""
    record = data[index]
    image, mask = record.shape("image")[:2], record.shape(name)[:2]
    if tuple(image) != tuple(mask):
        size = f"{mask[0]} x {mask[1]} pixels, its image {image[0]} x {image[1]}"
        return [f"{where(data, index)}: {name} is {size}"], []
    return [], np.unique(_flat(record.read(name))).tolist()


def _nothing(task: Task, data: Dataset, split: str, samples: int, m: MaskField) -> str:
    of = f" of {m.name}" if len(task.masks) > 1 else ""
    return (
        f"split '{split}': none of {samples} masks of {data.path} holds any object{of} "
        f"({'values ' + str(list(m.values)) if m.values else 'pixels above 0'}): nothing can be "
        f"{'learned' if split == task.data.train else 'measured'} on it; split again, or mend mask_values"
    )


def _values(task: Task, data: Dataset, name: str, seen: dict[int, list[int]]) -> list[str]:
    """Several values above 0: smoothed edges, several classes, or masks of two makers; which are the object is for the task to say."""
    above = sorted(v for v in seen if v > 0)
    if len(above) < 2:
        return []
    lines = [
        f"{where(data, seen[v][0])}: {name} holds the value {v}, as do {len(seen[v])} masks" for v in above[:SHOWN]
    ]
    more = [f"and {len(above) - SHOWN} more values"] if len(above) > SHOWN else []
    return [
        *lines, *more,
        f"a mask has one value above 0, these have {len(above)}: mend them, or say in task {task.name} which are the object, "
        f"for example mask_values=[{above[-1]}], or {{structure: [values]}} for several structures",
    ]  # fmt: skip


def where(data: Dataset, index: int) -> str:
    """A sample's place for a person: file, row and key."""
    return f"{data.path / 'splits.csv'} row {index + 2} ({data.keys_of(np.array([index]))[0]})"


def _flat(mask: np.ndarray) -> np.ndarray:
    return mask if mask.ndim == 2 else one_channel(mask)

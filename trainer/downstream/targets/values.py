"""The values of a label as words, and words as codes.

Shape letters: N samples of the data set.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shards.read.dataset import Dataset
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

SHOWN = 5
MOST_GROUPS = 30


def words_of(data: Dataset, name: str) -> np.ndarray:
    """A label as words [N], "" where missing; whole numbers are written so, others with all their digits."""
    info, values = data.info.labels[name], data.label_values[name]
    if info.kind == "class":
        return np.array([info.classes[v] if v >= 0 else "" for v in values.tolist()], dtype=object)
    return np.array([_word(v) for v in values.tolist()], dtype=object)


def _word(value: float) -> str:
    if np.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def values_of(data: Dataset, name: str) -> tuple[str, ...]:
    """The words of a label, those that no sample has (any more) among them where the data set lists classes."""
    info = data.info.labels[name]
    if info.kind == "class":
        return tuple(info.classes)
    known = data.label_values[name]
    return tuple(_word(v) for v in np.unique(known[~np.isnan(known)]).tolist())


def check_groups(task: Task, data: Dataset) -> None:
    """Raises: UserError: labels of `groups` that the data set lacks, or that have too many values to be groups."""
    problems = []
    for name in task.groups:
        if name not in data.info.labels:
            has = ", ".join(sorted(data.info.labels)) or "none"
            problems.append(
                f"groups: {data.path} has no label '{name}' (it has: {has}); mend `groups` in task {task.name}"
            )
        elif (n := len(values_of(data, name))) > MOST_GROUPS:
            problems.append(
                f"groups: label '{name}' has {n} values, groups are {MOST_GROUPS} at most; pack a label of bands (under 50, 50 to 64, ...)"
            )
    if problems:
        raise UserError(problems)


def check_site(task: Task, data: Dataset) -> None:
    """Raises: UserError: a label of `site` that the data set lacks or that is one and the same everywhere; a site that is none of its."""
    if task.site is None:
        return
    if task.site not in data.info.labels:
        has = ", ".join(sorted(data.info.labels)) or "none"
        raise UserError(
            f"site: {data.path} has no label '{task.site}' (it has: {has}); mend `site` in task {task.name}"
        )
    there = sorted(set(words_of(data, task.site).tolist()) - {""})
    if len(there) < 2:
        raise UserError(
            f"site: label '{task.site}' of {data.path} is {there[0] if there else 'empty'} everywhere: one hospital alone has nothing "
            "to be told apart from; leave `site` out, and look at another hospital's set with tests.NAME=FOLDER"
        )
    if task.hold_out is not None and task.hold_out not in there:
        raise UserError(
            f"hold_out: no sample of {data.path} has {task.site} '{task.hold_out}' (there are: {', '.join(there[:SHOWN])}"
            f"{', ...' if len(there) > SHOWN else ''}); give one of them"
        )


def coded(task: Task, data: Dataset, name: str, codes: Mapping[str, float]) -> np.ndarray:
    """Codes of the values [N] as float, NaN for missing or left out.

    Raises:
        UserError: values that have no code, with their rows.
    """
    words_N = words_of(data, name)
    known = set(codes) | set(task.leave_out) | {""}
    if strange := sorted(set(words_N.tolist()) - known):
        lines = []
        for value in strange[:SHOWN]:
            at = np.flatnonzero(words_N == value)
            keys = ", ".join(data.keys_of(at[:SHOWN]))
            lines.append(
                f"{data.path / 'labels.csv'}: label '{name}' is '{value}' in {len(at)} samples (row {int(at[0]) + 2}: {keys}"
                f"{', ...' if len(at) > SHOWN else ''}), which task {task.name} does not know ({', '.join(sorted(codes))}); "
                f"mend the label, name the value in `classes`, or leave these samples out (leave_out: ['{value}'])"
            )
        if len(strange) > SHOWN:
            lines.append(f"and {len(strange) - SHOWN} more values")
        raise UserError(lines)
    code = {value: c for value, c in codes.items() if value not in task.leave_out}
    return np.array([code.get(w, np.nan) for w in words_N.tolist()])

"""Which of two evaluations on held-back data is kept. One rule for every training and probe, so that weights and reports agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Direction = Literal["max", "min"]


class Evaluation(NamedTuple):
    """A metric's value on held-back data, NaN where it has none, and the loss there, None where none was computed."""

    value: float
    loss: float | None = None


def better(one: Evaluation, best: Evaluation | None, direction: Direction) -> bool:
    """Whether an evaluation is kept in the place of the best one before it.

    The better value is; of equal values the smaller held-back loss; where that is equal too, or not known, the later one: a
    metric that is flat says nothing, and of two that say nothing the one that was trained longer is what was asked for. A value
    that is NaN is never kept.
    """
    if math.isnan(one.value):
        return False
    if best is None:
        return True
    if one.value != best.value:
        return one.value > best.value if direction == "max" else one.value < best.value
    return _known(one.loss) <= _known(best.loss)


def best_evaluation(found: Sequence[Evaluation], higher_is_better: bool) -> int:
    """Which of the evaluations of one training was kept, one after the other, by its loop. One of them has a value."""
    at: int | None = None
    for i, one in enumerate(found):
        if better(one, None if at is None else found[at], "max" if higher_is_better else "min"):
            at = i
    assert at is not None, "no evaluation has a value"
    return at


def chosen(found: Sequence[Evaluation], direction: Direction) -> int | None:
    """Which of several candidates is taken, by the same rule; of those that are equal in both the first. None where none has a value."""
    at: int | None = None
    for i in reversed(range(len(found))):
        if better(found[i], None if at is None else found[at], direction):
            at = i
    return at


def _known(loss: float | None) -> float:
    return math.inf if loss is None or math.isnan(loss) else loss

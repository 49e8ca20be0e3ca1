"""Numbers that change over the updates of a stage, as functions of the share `done` of them (`Method.at`)."""

from __future__ import annotations

import math


def half_cosine(start: float, end: float, done: float) -> float:
    """`start` at 0, `end` at 1, along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def warmed(start: float, end: float, share: float, done: float) -> float:
    """From `start` to `end` in a line over the first `share` of the updates, then `end`."""
    return end if done >= share else start + (end - start) * done / share

"""Members with equal contents, found by marks of a fixed width: some tens of bytes a member."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np


class Twins:
    """Marks of members, each with the number of its sample and of its field. `width`: bytes of a mark, a multiple of 8."""

    def __init__(self, width: int):
        self._width, self._marks = width, bytearray()
        self._samples, self._fields = array("I"), array("H")

    def add(self, mark: bytes, sample: int, field: int) -> None:
        self._marks += mark
        self._samples.append(sample)
        self._fields.append(field)

    def merge(self, later: Twins, first: int) -> None:
        """Takes in members that come later, whose samples are numbered from `first` on."""
        self._marks += later._marks
        self._samples.extend(first + sample for sample in later._samples)
        self._fields.extend(later._fields)

    def groups(self) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
        """(mark, [(sample, field)]) of every mark that several members have, in the order of the first of them."""
        mark_NW = np.frombuffer(self._marks, np.uint64).reshape(-1, self._width // 8)
        at_N = _repeated(mark_NW[:, -1])
        mark_NW = mark_NW[at_N]
        order_N = np.lexsort(mark_NW.T[::-1])
        begins_N = np.ones(len(order_N), bool)
        for at in range(1, len(order_N), PART):  # not all marks in their order at once
            some = slice(at, at + PART)
            before = slice(at - 1, at + PART - 1)
            left = mark_NW[order_N[before]][: len(order_N) - at]
            begins_N[some] = (mark_NW[order_N[some]] != left).any(1)
        first_G = np.flatnonzero(begins_N)
        size_G = np.diff(np.append(first_G, len(order_N)))
        several_G = np.flatnonzero(size_G > 1)
        # The order is stable, so the first of a group is its first member.
        for group in several_G[np.argsort(order_N[first_G[several_G]], kind="stable")]:
            members = order_N[first_G[group] : first_G[group] + size_G[group]]
            mark = mark_NW[members[0]].tobytes()
            yield mark, [(self._samples[m], self._fields[m]) for m in at_N[members].tolist()]


def _repeated(word_N: np.ndarray) -> np.ndarray:
    """Places of the words that stand several times, ascending: of most sets few or none."""
    sorted_N = np.sort(word_N)
    twice_T = np.unique(sorted_N[1:][sorted_N[1:] == sorted_N[:-1]])
    del sorted_N
    if not len(twice_T):
        return np.empty(0, np.int64)
    parts = []
    for at in range(0, len(word_N), PART):
        some_P = word_N[at : at + PART]
        near_P = np.minimum(np.searchsorted(twice_T, some_P), len(twice_T) - 1)
        parts.append(at + np.flatnonzero(twice_T[near_P] == some_P))
    return np.concatenate(parts)


PART = 1 << 16

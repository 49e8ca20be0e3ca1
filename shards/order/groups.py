"""Numbers listed by the group that each belongs to, in one pass over them and in two bytes each.

The pass goes through the numbers in parts that fit the cache. A part is put in order by itself and stays where it is; a cell says where
the numbers of one group in one part lie.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

PART = 1 << 14
"""Numbers of a part that is cut from many; what is listed, and in which order, does not depend on it."""

WIDEST = 1 << 16
"""What places in a part are below."""


class Groups:
    """Places below 2^63, by group.

    Args:
        parts: (where a part begins; its places from there on, ascending, below `WIDEST`; the group of each, 0 and more).
        most: most places of all parts together; memory is used for those that come.

    Attributes:
        number: int64 [groups], ascending: the groups that there are.
        count: int64 [groups]: places of each.
    """

    def __init__(self, parts: Iterable[tuple[int, np.ndarray, np.ndarray]], most: int):
        self._listed = np.empty(most, np.uint16)
        filled, cells = 0, [(np.zeros(0, np.int64),) * 4]
        for start, places, groups in parts:
            if not len(places):
                continue
            order = np.argsort(_narrow(groups), kind="stable")
            in_order = groups[order]
            first = np.flatnonzero(in_order[1:] != in_order[:-1]) + 1
            begin = np.concatenate([[0], first])
            self._listed[filled : filled + len(order)] = places[order]
            count = np.concatenate([first, [len(order)]]) - begin
            cells.append((in_order[begin], np.full(len(begin), start), filled + begin, count))
            filled += len(order)
        group, origin, begin, count = (np.concatenate(c) for c in zip(*cells, strict=True))
        by_group = np.argsort(group, kind="stable")
        self._origin, self._end = origin[by_group], np.cumsum(count[by_group])
        self._shift = begin[by_group] - self._end + count[by_group]
        self.number, first = np.unique(group[by_group], return_index=True)
        self.count = np.add.reduceat(count[by_group], first)
        self._first = np.cumsum(self.count) - self.count
        self._hints(np.diff(first, append=len(group)))

    def _hints(self, cells: np.ndarray) -> None:
        """The cell of every 2^`_apart`-th place of a group, which has two to four such places a cell."""
        self._apart = np.frexp(np.maximum(self.count // (2 * cells), 1))[1] - 1
        hints = ((self.count - 1) >> self._apart) + 1
        self._hint0 = np.cumsum(hints) - hints
        group = np.repeat(np.arange(len(hints)), hints)
        nth = (np.arange(len(group)) - self._hint0[group]) << self._apart[group]
        self._hint = np.searchsorted(self._end, self._first[group] + nth, "right")

    def at(self, group: np.ndarray | int, nth: np.ndarray) -> np.ndarray:
        """int64 [m]: the nth place, from 0, of a group [m], which is named by its position in `number`."""
        among = self._first[group] + nth
        cell = self._hint[self._hint0[group] + (nth >> self._apart[group])]
        cell += self._end[cell] <= among
        if len(late := np.flatnonzero(self._end[cell] <= among)):
            cell[late] = np.searchsorted(self._end, among[late], "right")
        return self._origin[cell] + self._listed[self._shift[cell] + among]


def _narrow(groups: np.ndarray) -> np.ndarray:
    """Numbers that NumPy sorts by counting; groups above 65,535 may share one, and get a cell for every change between them."""
    return groups.astype(np.uint8 if int(groups.max()) < 1 << 8 else np.uint16)

"""The lines of splits.csv and labels.csv of a manifest's samples, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from shards.format.seal import SampleRow
from shards.pack.entries import Entry, bare


class Rows(Sequence[SampleRow]):
    """Rows of entries.

    Args:
        splits: names of splits, where the entries name none.
        of_N: int8 [N], the number of each sample's split in `splits`.
    """

    def __init__(self, entries: Sequence[Entry], splits: Sequence[str] = ("train",), of_N: np.ndarray | None = None):
        self._entries, self._splits = entries, splits
        self._of_N = np.zeros(len(entries), np.int8) if of_N is None else of_N

    def split_of(self, at: int, entry: Entry) -> str:
        """The split of the entry at a place."""
        return entry.split or self._splits[self._of_N[at]]

    def _row(self, entry: Entry, of: int) -> SampleRow:
        return SampleRow(entry.sample, entry.patient, entry.split or self._splits[of], entry.labels)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[SampleRow]:
        return map(self._row, bare(self._entries), self._of_N.tobytes())

    @overload
    def __getitem__(self, at: int) -> SampleRow: ...
    @overload
    def __getitem__(self, at: slice) -> list[SampleRow]: ...
    def __getitem__(self, at: int | slice) -> SampleRow | list[SampleRow]:
        found = self._entries[at]
        of = self._of_N[at]
        if isinstance(found, Entry):
            return self._row(found, int(of))
        return [*map(self._row, found, of.tolist())]

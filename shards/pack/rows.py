"""The lines of splits.csv and labels.csv of a manifest's samples, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from shards.format.seal import SampleRow
from shards.pack.entries import Entry, bare


class Rows(Sequence[SampleRow]):
    """Rows of entries; `of`: the split of each patient, where the entries name none."""

    def __init__(self, entries: Sequence[Entry], of: Mapping[str, str]):
        self._entries, self._of = entries, of

    def split_of(self, entry: Entry) -> str:
        return entry.split or self._of.get(entry.patient, "train")

    def _row(self, entry: Entry) -> SampleRow:
        return SampleRow(entry.sample, entry.patient, self.split_of(entry), entry.labels)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[SampleRow]:
        return map(self._row, bare(self._entries))

    @overload
    def __getitem__(self, at: int) -> SampleRow: ...
    @overload
    def __getitem__(self, at: slice) -> list[SampleRow]: ...
    def __getitem__(self, at: int | slice) -> SampleRow | list[SampleRow]:
        found = self._entries[at]
        return self._row(found) if isinstance(found, Entry) else [self._row(e) for e in found]

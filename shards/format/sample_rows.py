"""The lines of splits.csv and labels.csv in a few bytes a sample: columns of what repeats, and texts end to end."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np

from shards.tables.columns import Found, Marks, Numbers, Texts, Words
from shards.tables.encoded import Encoded
from shards.tables.repeats import repeated


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One line of splits.csv and labels.csv. Labels: a class name, a number, or absent where unknown."""

    sample: str
    patient: str
    split: str
    labels: Mapping[str, str | float]

    def moved(self, split: str) -> SampleRow:
        return replace(self, split=split)


class Cells(Sequence[list[str]]):
    """Rows of a table whose first column names them; `repeat`: of each other one, whether its cells are few words."""

    def __init__(self, repeat: Iterable[bool]):
        self.first, self.others = Texts(), [Words() if few else Texts() for few in repeat]

    def append(self, cells: Iterable[str]) -> None:
        for column, cell in zip((self.first, *self.others), cells, strict=True):
            column.append(cell)

    def __len__(self) -> int:
        return len(self.first)

    @overload
    def __getitem__(self, at: int) -> list[str]: ...
    @overload
    def __getitem__(self, at: slice) -> list[list[str]]: ...
    def __getitem__(self, at: int | slice) -> list[str] | list[list[str]]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return [self.first[at], *(str(column[at]) for column in self.others)]


class _Labels(Mapping[str, str | float]):
    """Those of a row, looked up when they are asked for: most who go over rows ask for none."""

    __slots__ = ("_at", "_columns")

    def __init__(self, columns: Mapping[str, Words | Numbers], at: int):
        self._columns, self._at = columns, at

    def __getitem__(self, name: str) -> str | float:
        if (value := self._columns[name][self._at]) is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name, column in self._columns.items() if column[self._at] is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class SampleRows(Sequence[SampleRow]):
    """Rows, made when they are asked for. `numbers`: of every label, in order, whether it is a number."""

    def __init__(self, numbers: Mapping[str, bool]):
        self._samples, self._splits = Texts(), Words()
        self._patients: Texts | Encoded = Texts()
        self._labels: dict[str, Words | Numbers] = {n: Numbers() if is_ else Words() for n, is_ in numbers.items()}

    @classmethod
    def named(cls, samples: Texts, patients: Texts, splits: Words, numbers: Mapping[str, bool]) -> SampleRows:
        """Rows without labels: `label` is called once for each. The columns are theirs from now on."""
        rows = cls(numbers)
        rows._samples, rows._patients, rows._splits = samples, Encoded(patients), splits
        return rows

    def name(self, sample: str, patient: str, split: str) -> None:
        """One more row; `label` is called as often."""
        assert isinstance(self._patients, Texts), "not after `settle`"
        self._samples.append(sample)
        self._patients.append(patient)
        self._splits.append(split)

    def label(self, labels: Mapping[str, str | float]) -> None:
        """Those of the first row that has none yet."""
        for name, column in self._labels.items():
            column.append(labels.get(name))  # type: ignore[arg-type]

    def settle(self) -> None:
        """All rows are there."""
        self._patients = Encoded(self._patients)

    @property
    def samples(self) -> Texts:
        return self._samples

    @property
    def patients(self) -> Encoded:
        """Of rows that are settled."""
        assert isinstance(self._patients, Encoded)
        return self._patients

    def respelt(self, name_of: Callable[[str], str]) -> SampleRows:
        """With other names for patients."""
        return self._with(Encoded(name_of(p) for p in self._patients), self._splits)

    def moved(self, splits: Sequence[str], of_P: np.ndarray) -> SampleRows:
        """With other splits: of each patient, in the order of `patients.names`, the number of its own in `splits`."""
        words = Words()
        words.words, words.codes = [*splits], array("b", of_P.astype(np.int8)[self.patients.code_N].tobytes())
        return self._with(self.patients, words)

    def _with(self, patients: Encoded, splits: Words) -> SampleRows:
        other = SampleRows({})
        other._samples, other._labels, other._patients, other._splits = self._samples, self._labels, patients, splits
        return other

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, at: int) -> SampleRow: ...
    @overload
    def __getitem__(self, at: slice) -> list[SampleRow]: ...
    def __getitem__(self, at: int | slice) -> SampleRow | list[SampleRow]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        patient, split = self._patients[at], str(self._splits[at])
        return SampleRow(self._samples[at], patient, split, _Labels(self._labels, at))

    def by_sample(self) -> BySample:
        """Rows by the name of the sample; the last of a name."""
        return BySample(self)


class BySample(Mapping[str, SampleRow]):
    """Mostly asked for in their order: only where a name is not at the place behind the last one's, by the marks of names, 20 bytes a
    sample. For this process and those that are forked from it."""

    def __init__(self, rows: SampleRows):
        self._rows, self._last = rows, -1
        self._twice = repeated(rows.samples)

    @cached_property
    def _found(self) -> Found:
        marks = Marks()
        for name in self._rows.samples:
            marks.append(name)
        return marks.found()

    def __getitem__(self, sample: str) -> SampleRow:
        names = self._rows.samples
        for at in (self._last, self._last + 1):
            if 0 <= at < len(names) and names[at] == sample and hash(sample) not in self._twice:
                self._last = at
                return self._rows[at]
        if not (places := [*self._found.every(sample)]):
            raise KeyError(sample)
        self._last = places[-1]
        return self._rows[self._last]

    def begin(self, at: int) -> None:
        """The sample that is asked for next is likely to be this one."""
        self._last = at - 1

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.samples)

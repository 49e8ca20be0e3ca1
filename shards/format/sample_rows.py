"""The lines of splits.csv and labels.csv in a few bytes a sample: columns of what repeats, and texts end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

from shards.tables.columns import Marks, Numbers, Texts, Words


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
        self.first, self._others = Texts(), [Words() if few else Texts() for few in repeat]

    def append(self, cells: Iterable[str]) -> None:
        for column, cell in zip((self.first, *self._others), cells, strict=True):
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
        return [self.first[at], *(str(column[at]) for column in self._others)]


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
        self._samples, self._patients, self._splits = Texts(), Words(), Words()
        self._labels: dict[str, Words | Numbers] = {n: Numbers() if is_ else Words() for n, is_ in numbers.items()}

    def name(self, sample: str, patient: str, split: str) -> None:
        """One more row; `label` is called as often."""
        self._samples.append(sample)
        self._patients.append(patient)
        self._splits.append(split)

    def label(self, labels: Mapping[str, str | float]) -> None:
        """Those of the first row that has none yet."""
        for name, column in self._labels.items():
            column.append(labels.get(name))  # type: ignore[arg-type]

    def settle(self) -> None:
        """All rows are there."""
        self._patients.settle()

    @property
    def samples(self) -> Texts:
        return self._samples

    def respelt(self, name_of: Callable[[str], str]) -> SampleRows:
        """With other names for patients."""
        return self._with(self._patients.changed([name_of(p) for p in self._patients.words]), self._splits)

    def moved(self, split_of: Mapping[str, str]) -> SampleRows:
        """With the split of each patient."""
        splits = Words()
        of = [split_of[p] for p in self._patients.words]
        for code in self._patients.codes:
            splits.append(of[code])
        return self._with(self._patients, splits)

    def _with(self, patients: Words, splits: Words) -> SampleRows:
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
        patient, split = str(self._patients[at]), str(self._splits[at])
        return SampleRow(self._samples[at], patient, split, _Labels(self._labels, at))

    def by_sample(self) -> Mapping[str, SampleRow]:
        """Rows by the name of the sample; the last of a name."""
        return _BySample(self)


class _BySample(Mapping[str, SampleRow]):
    """By the marks of names, in order: 20 bytes a sample. For this process and those that are forked from it."""

    def __init__(self, rows: SampleRows):
        marks = Marks()
        for name in rows.samples:
            marks.append(name)
        self._rows, self._found = rows, marks.found()

    def __getitem__(self, sample: str) -> SampleRow:
        if not (places := [*self._found.every(sample)]):
            raise KeyError(sample)
        return self._rows[places[-1]]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.samples)

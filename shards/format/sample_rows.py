"""The lines of splits.csv and labels.csv in a few bytes a sample: columns of what repeats, and texts end to end."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One line of splits.csv and labels.csv. Labels: a class name, a number, or absent where unknown."""

    sample: str
    patient: str
    split: str
    labels: Mapping[str, str | float]

    def moved(self, split: str) -> SampleRow:
        return replace(self, split=split)


class Texts(Sequence[str]):
    """Texts that hardly repeat: their bytes, and 8 more each."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("q")

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __iadd__(self, others: Texts) -> Texts:
        begin = len(self._bytes)
        self._bytes += others._bytes
        self._ends.extend(begin + end for end in others._ends)
        return self

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        return self._bytes[self._ends[at - 1] if at else 0 : self._ends[at]].decode("utf-8", "surrogatepass")


class _Words:
    """Words that repeat: 4 bytes each. None: there is none."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.codes = array("i")
        self._known: dict[str, int] = {}

    def append(self, word: str | None) -> None:
        if word is None:
            self.codes.append(-1)
            return
        code = self._known.setdefault(word, len(self.words))
        if code == len(self.words):
            self.words.append(word)
        self.codes.append(code)

    def __getitem__(self, at: int) -> str | None:
        return self.words[code] if (code := self.codes[at]) >= 0 else None

    def changed(self, words: Sequence[str]) -> _Words:
        """Others in the places of these."""
        other = _Words()
        other.words, other.codes = [*words], self.codes
        return other


class _Numbers:
    def __init__(self) -> None:
        self.values, self.known = array("d"), bytearray()

    def append(self, value: float | None) -> None:
        self.values.append(0.0 if value is None else value)
        self.known.append(value is not None)

    def __getitem__(self, at: int) -> float | None:
        return self.values[at] if self.known[at] else None


class Cells(Sequence[list[str]]):
    """Rows of a table whose first column names them; `repeat`: of each other one, whether its cells are few words."""

    def __init__(self, repeat: Iterable[bool]):
        self.first, self._others = Texts(), [_Words() if few else Texts() for few in repeat]

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

    def __init__(self, columns: Mapping[str, _Words | _Numbers], at: int):
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
        self._samples, self._patients, self._splits = Texts(), _Words(), _Words()
        self._labels: dict[str, _Words | _Numbers] = {n: _Numbers() if is_ else _Words() for n, is_ in numbers.items()}

    def name(self, sample: str, patient: str, split: str) -> None:
        """One more row; `label` is called as often."""
        self._samples.append(sample)
        self._patients.append(patient)
        self._splits.append(split)

    def label(self, labels: Mapping[str, str | float]) -> None:
        """Those of the first row that has none yet."""
        for name, column in self._labels.items():
            column.append(labels.get(name))  # type: ignore[arg-type]

    @property
    def samples(self) -> Texts:
        return self._samples

    def respelt(self, name_of: Callable[[str], str]) -> SampleRows:
        """With other names for patients."""
        return self._with(self._patients.changed([name_of(p) for p in self._patients.words]), self._splits)

    def moved(self, split_of: Mapping[str, str]) -> SampleRows:
        """With the split of each patient."""
        splits = _Words()
        of = [split_of[p] for p in self._patients.words]
        for code in self._patients.codes:
            splits.append(of[code])
        return self._with(self._patients, splits)

    def _with(self, patients: _Words, splits: _Words) -> SampleRows:
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
    """By the hashes of names, in order: 12 to 16 bytes a sample. For this process and those that are forked from it."""

    def __init__(self, rows: SampleRows):
        self._rows = rows
        hash_N = np.fromiter(map(hash, rows.samples), np.int64, len(rows))
        place_N = np.argsort(hash_N, kind="stable")
        self._hashes, self._places = array("q", hash_N[place_N].tobytes()), array("q", place_N.tobytes())

    def __getitem__(self, sample: str) -> SampleRow:
        at, found = bisect_left(self._hashes, wanted := hash(sample)), -1
        while at < len(self._hashes) and self._hashes[at] == wanted:
            found = self._places[at] if self._rows.samples[self._places[at]] == sample else found
            at += 1
        if found < 0:
            raise KeyError(sample)
        return self._rows[found]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.samples)

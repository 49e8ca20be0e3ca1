"""What stands in a column of many rows, in a few bytes a row: texts end to end, words that repeat, numbers; and which names are equal.

`Column` is for cells of which nothing is known before: words while they repeat, else texts. `Marks` compares names by 16 bytes each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

FEW, SHARE = 4096, 12
"""A column stays words up to `FEW` of them, or while there is one in `SHARE` cells: each costs some 170 bytes more than its text."""
WIDER = {"b": "h", "h": "i", "i": "q", "I": "Q"}


class Cells(Sequence[str], ABC):
    """A sequence of texts by what one of them is."""

    @abstractmethod
    def cell(self, at: int) -> str:
        """The one at a place, counted from the end where it is negative."""

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self.cell(i) for i in range(*at.indices(len(self)))]
        return self.cell(at)

    def __iter__(self) -> Iterator[str]:
        return map(self.cell, range(len(self)))


class Texts(Cells):
    """Texts that hardly repeat: their bytes, and 4 more each (8 beyond 4 GiB)."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes, self._ends = bytearray(), array("I")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        try:
            self._ends.append(len(self._bytes))
        except OverflowError:
            self._ends = array("Q", self._ends)
            self._ends.append(len(self._bytes))

    def __iadd__(self, others: Texts) -> Texts:
        begin = len(self._bytes)
        self._bytes += others._bytes
        if self._ends.typecode == "I" and len(self._bytes) >> 32:
            self._ends = array("Q", self._ends)
        self._ends.extend(begin + end for end in others._ends)
        return self

    def __len__(self) -> int:
        return len(self._ends)

    def cell(self, at: int) -> str:
        if at < 0 or at >= len(self._ends):
            at = range(len(self))[at]
        return self._bytes[self._ends[at - 1] if at else 0 : self._ends[at]].decode("utf-8", "surrogatepass")

    def as_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [B] all texts in UTF-8, uint32 or uint64 [N] where each ends; nothing can be appended while these are in use."""
        return np.frombuffer(self._bytes, np.uint8), np.frombuffer(self._ends, f"u{self._ends.itemsize}")


class Words:
    """Words that repeat: 1 to 4 bytes each. None: there is none."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.codes = array("b")
        self._known: dict[str, int] = {}

    def append(self, word: str | None) -> None:
        if word is None:
            self.codes.append(-1)
            return
        code = self._known.setdefault(word, len(self.words))
        if code == len(self.words):
            self.words.append(word)
        try:
            self.codes.append(code)
        except OverflowError:
            self.codes = array(WIDER[self.codes.typecode], self.codes)
            self.codes.append(code)

    def settle(self) -> None:
        """No more words are appended: what they are told apart by is let go."""
        self._known = {}

    def __len__(self) -> int:
        return len(self.codes)

    def cell(self, at: int) -> str | None:
        return self.words[code] if (code := self.codes[at]) >= 0 else None

    __getitem__ = cell

    def changed(self, words: Sequence[str]) -> Words:
        """Others in the places of these."""
        other = Words()
        other.words, other.codes = [*words], self.codes
        return other


class Numbers:
    """Numbers that may not be known: 9 bytes each."""

    def __init__(self) -> None:
        self.values, self.known = array("d"), bytearray()

    def append(self, value: float | None) -> None:
        self.values.append(0.0 if value is None else value)
        self.known.append(value is not None)

    def __getitem__(self, at: int) -> float | None:
        return self.values[at] if self.known[at] else None


class Column(Cells):
    """Cells of a table's column."""

    def __init__(self, cells: Iterable[str] = ()) -> None:
        self._kept: Words | Texts = Words()
        self.blanks = False
        """Whether a cell is blank."""
        for cell in cells:
            self.append(cell)

    @classmethod
    def of(cls, cell: str, count: int) -> Column:
        """The same cell in each of `count` rows."""
        made = cls()
        if count:
            made.append(cell)
            assert isinstance(made._kept, Words)
            made._kept.codes *= count
        return made

    def append(self, cell: str) -> None:
        self._kept.append(cell)
        if not cell:
            self.blanks = True
        kept = self._kept
        if isinstance(kept, Words) and len(kept.words) > FEW and len(kept.words) * SHARE > len(kept.codes):
            self._kept = Texts()
            for i in range(len(kept)):
                self._kept.append(kept[i] or "")

    def __len__(self) -> int:
        return len(self._kept)

    def cell(self, at: int) -> str:
        return self._kept.cell(at) or ""

    def extend(self, others: Column) -> None:
        for cell in others:
            self.append(cell)

    def taken(self, place_N: np.ndarray, own: Column | None = None) -> Column:
        """The cells of places, blank where a place is -1.

        Args:
            own: N cells, which these are for where they are blank.
        """
        made = Column()
        if own is None and isinstance(self._kept, Words):
            words = Words()
            words.words = [*self._kept.words]
            words._known = {w: i for i, w in enumerate(words.words)}
            blank = words._known.setdefault("", len(words.words))
            words.words += [""] * (blank == len(words.words))
            kind = next(k for k in ("b", "h", "i") if len(words.words) <= 1 << 8 * array(k).itemsize - 1)
            own_M = np.frombuffer(self._kept.codes, f"i{self._kept.codes.itemsize}")
            code_N = np.append(own_M.astype(f"i{array(kind).itemsize}"), np.array(blank, f"i{array(kind).itemsize}"))[
                place_N
            ]
            words.codes = _array(kind, code_N)
            made._kept, made.blanks = words, bool((code_N == blank).any())
            return made
        for i, place in enumerate(place_N.tolist()):
            mine = own[i] if own is not None else ""
            made.append(mine or (self.cell(place) if place >= 0 else ""))
        return made


def _array(kind: str, values_N: np.ndarray) -> array[int]:
    made = array(kind)
    made.frombytes(np.ascontiguousarray(values_N, f"{'i' if kind.islower() else 'u'}{made.itemsize}").view(np.uint8))  # type: ignore[arg-type]
    return made


def _mark(parts: Sequence[str]) -> tuple[int, int]:
    text = parts[0] if len(parts) == 1 else "".join([f"{len(p)}:{p}" for p in parts])
    return hash(text), hash(f"{text}\0")


class Marks:
    """Names, of one or several parts, by 16 bytes each: two are equal where their marks are (other names are once in 10^20 lists of a
    billion). For this process, and those that are forked from it."""

    def __init__(self) -> None:
        self._of = array("q")

    def append(self, *parts: str) -> None:
        self._of.extend(_mark(parts))

    def __len__(self) -> int:
        return len(self._of) // 2

    def _as_array(self) -> np.ndarray:
        return np.frombuffer(self._of, np.int64).reshape(-1, 2)

    def first(self) -> np.ndarray:
        """int64 [N]: of each name the place where it stands first."""
        return self.found().first()

    def found(self) -> Found:
        """To look names up."""
        return Found(self._as_array())


class Found:
    """Where marked names stand: 20 bytes each."""

    def __init__(self, mark_N2: np.ndarray):
        order_N = np.lexsort((mark_N2[:, 1], mark_N2[:, 0]))
        self._first, self._second = (_array("q", mark_N2[order_N, half]) for half in (0, 1))
        self._places = _array("I" if len(order_N) >> 32 == 0 else "Q", order_N)

    def _begins(self) -> np.ndarray:
        """bool [N], in the order of marks: whether a mark is another one than that before it."""
        first_N, second_N = (np.frombuffer(half, np.int64) for half in (self._first, self._second))
        begins_N = np.ones(len(first_N), bool)
        begins_N[1:] = (first_N[1:] != first_N[:-1]) | (second_N[1:] != second_N[:-1])
        return begins_N

    def different(self) -> int:
        """How many names there are, each counted once."""
        return int(self._begins().sum())

    def first(self) -> np.ndarray:
        """int64 [N]: of each name the place where it stands first."""
        begins_N, place_N = self._begins(), np.frombuffer(self._places, f"u{self._places.itemsize}")
        first_N = np.empty(len(place_N), np.int64)
        first_N[place_N] = place_N[begins_N][np.cumsum(begins_N) - 1]
        return first_N

    def __len__(self) -> int:
        return len(self._first)

    def every(self, *parts: str) -> Iterator[int]:
        """All places of a name, in order."""
        first, second = _mark(parts)
        at = bisect_left(self._first, first)
        while at < len(self._first) and self._first[at] == first:
            if self._second[at] == second:
                yield self._places[at]
            at += 1

    def __call__(self, *parts: str) -> int:
        """The first place of a name, -1 where it is none of these."""
        return next(self.every(*parts), -1)

    def all_of(self, names: Marks) -> np.ndarray:
        """int64 [N]: the first place of each of other names, -1 where it is none of these."""
        mark_N2, own_M = names._as_array(), np.frombuffer(self._first, np.int64)
        place_N = np.full(len(mark_N2), -1, np.int64)
        if not len(own_M):
            return place_N
        at_N = np.minimum(np.searchsorted(own_M, mark_N2[:, 0]), len(own_M) - 1)
        like_N = own_M[at_N] == mark_N2[:, 0]
        same_N = like_N & (np.frombuffer(self._second, np.int64)[at_N] == mark_N2[:, 1])
        place_N[same_N] = np.frombuffer(self._places, f"u{self._places.itemsize}")[at_N[same_N]]
        for i in np.flatnonzero(like_N & ~same_N).tolist():  # two names with one first half
            at = int(at_N[i])
            while at < len(own_M) and own_M[at] == mark_N2[i, 0]:
                if self._second[at] == mark_N2[i, 1]:
                    place_N[i] = self._places[at]
                    break
                at += 1
        return place_N

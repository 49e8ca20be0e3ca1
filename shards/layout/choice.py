"""Which rows of a set are wanted: those that the layout does not exclude, of the views that were asked for; and a list of what was not."""

from __future__ import annotations

import argparse
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from shards.errors import bad
from shards.layout.answers import Answers
from shards.layout.lines import Line, Lines
from shards.layout.schema import Exclude, Listing
from shards.tables.columns import Column


class LeftOut(Sequence[tuple[str, str]]):
    """(what, why), in columns."""

    def __init__(self) -> None:
        self._what, self._why = Column(), Column()

    def append(self, what: str, why: str) -> None:
        self._what.append(what)
        self._why.append(why)

    def extend(self, pairs: Iterable[tuple[str, str]]) -> None:
        for what, why in pairs:
            self.append(what, why)

    def reasons(self) -> Iterator[str]:
        """A line for each, with its count."""
        return (f"  {n} x {why}" for why, n in Counter(self._why).most_common())

    def __len__(self) -> int:
        return len(self._what)

    @overload
    def __getitem__(self, at: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, at: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, at: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return self._what[at], self._why[at]


class Choice:
    """The numbers of the rows that are wanted, and of those that are not, which `left_out` tells."""

    def __init__(
        self,
        layout: Listing,
        args: argparse.Namespace,
        lines: Lines,
        answers: Answers,
        notes: list[str],
        left_out: LeftOut,
    ):
        """
        Raises:
            DataError: views that the layout does not tell, or that no row has; nothing is left.
        """
        self._layout, self._answers, self.dropped = layout, answers, array("I")
        self._views = [v.strip() for v in (args.views or "").split(",") if v.strip()]
        if self._views and not layout.view:
            raise bad("this layout tells no views", "--views", "leave it out")
        self.rows: Sequence[int] = range(len(lines))
        if layout.view or layout.exclude:
            self.rows = self._among(lines, notes, left_out)
        if not len(self.rows):
            raise bad(f"none of {len(lines)} rows is left", args.root, "they are all excluded: bring the whole set")

    def _among(self, lines: Lines, notes: list[str], left_out: LeftOut) -> Sequence[int]:
        kept, counts = array("I"), Counter[str]()
        for row, line in enumerate(lines):
            view = self._answers.view(line)
            counts[view or "not known"] += 1
            if (why := self._why_not(line, view)) is None:
                kept.append(row)
            else:
                self.dropped.append(row)
                left_out.append(line.where, why)
        if self._layout.view:
            notes.append(f"views: {', '.join(f'{n} {v}' for v, n in counts.most_common())}")
        if odd := [v for v in self._views if v not in counts]:
            raise bad(f"no row has the view '{odd[0]}'", "--views", f"views are {', '.join(counts)}")
        return kept

    def _why_not(self, line: Line, view: str) -> str | None:
        why = next((e.why for e in self._layout.exclude if _excluded(line.cells[e.column], e)), None)
        if why is None and self._views and view not in self._views:
            why = f"view {view or 'not known'} (--views)"
        return why


def _excluded(cell: str, by: Exclude) -> bool:
    return cell in by.drop or bool(by.keep and cell not in by.keep)

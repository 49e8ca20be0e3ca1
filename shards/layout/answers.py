"""Labels of a sample from cells, by the words that a layout gives them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from shards.errors import Problem
from shards.layout.lines import Line
from shards.layout.schema import Label, Listing
from shards.tables.cells import number, plain
from shards.tables.identity import few

PRESENT, ABSENT = "present", "absent"
UNKNOWN = "unknown"
VIEW = "view"
MOST = 4096
"""Different cells of a column whose meaning is remembered."""


class Answers:
    """Reads the labels of lines; cells that mean nothing are gathered by column and word."""

    def __init__(self, layout: Listing, unknown: Callable[[str], bool]):
        self.layout, self.unknown = layout, unknown
        self.strange: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        columns = [(label, c) for label in layout.labels for c in label.columns or [label.column or ""]]
        self._asked = [(label, column, dict[str, dict[str, str | float]]()) for label, column in columns]
        """With what cells of a column mean, of the first that differ."""
        self.kinds: dict[str, str] = {}
        for label in layout.labels:
            self.kinds |= dict.fromkeys(_names(label), label.kind)
        if layout.view:
            self.kinds[VIEW] = "class"

    def __call__(self, line: Line) -> dict[str, str | float]:
        found: dict[str, str | float] = {}
        for label, column, known in self._asked:
            cell = line.cells[column]
            if (meant := known.get(cell)) is None:
                odd = len(self.strange)
                meant = self._meant(label, column, cell, line)
                # Of a strange cell every row is named.
                if len(known) < MOST and len(self.strange) == odd and not odd:
                    known[cell] = meant
            found |= meant
        if view := self.view(line):
            found[VIEW] = view
        return found

    def _meant(self, label: Label, column: str, cell: str, line: Line) -> dict[str, str | float]:
        # A word that the layout knows is a value, whatever it means elsewhere ("-1", "None").
        if _meant(cell, label.words) is None and self.unknown(cell):
            return {}
        return self._among(label, cell, line) if label.among else self._one(label, column, cell, line)

    def _one(self, label: Label, column: str, cell: str, line: Line) -> dict[str, str | float]:
        name = label.name or (plain(column) if label.plain else column)
        if label.separator:
            parts = _parts(cell, label)
            word = next((w for key, w in label.words.items() if key in parts), None)
        else:
            word = _meant(cell, label.words) if label.words else cell
        word = label.others if word is None else word
        if word is None:
            self._odd(column, cell, f"known are {', '.join(map(repr, label.words))}", line)
        return {} if word in (None, UNKNOWN) else {name: str(word)}

    def _among(self, label: Label, cell: str, line: Line) -> dict[str, str | float]:
        """Each finding of a list that is complete: present where it is named, else absent."""
        parts, known = _parts(cell, label), [*label.among, *([label.none] if label.none else [])]
        for part in parts:
            if part not in known:
                self._odd(label.column or "", part, f"known are {', '.join(map(repr, known))}", line)
        if label.none in parts and len(parts) > 1:
            self._odd(label.column or "", cell, f"it says {label.none!r} and findings", line)
        return {plain(n) if label.plain else n: PRESENT if n in parts else ABSENT for n in known}

    def view(self, line: Line) -> str:
        view = self.layout.view
        cell = next((c for n in view.columns if not self.unknown(c := line.cells[n])), "") if view else ""
        return view.words.get(cell, cell) if view else ""

    def _odd(self, column: str, cell: str, known: str, line: Line) -> None:
        self.strange[column, cell, known].append(line.where)

    def problems(self) -> Iterator[Problem]:
        for (column, cell, known), where in self.strange.items():
            what = (
                f"column '{column}' is '{cell}' in {len(where)} rows ({few(where)}), which means nothing here: {known}"
            )
            yield Problem(
                what, "the tables", "mend the cells; if another release says so, copy the layout and add the word"
            )


def _names(label: Label) -> Iterator[str]:
    if label.among:
        names = [*label.among, *([label.none] if label.none else [])]
    else:
        names = [label.name] if label.name else label.columns or [label.column or ""]
    yield from (plain(n) if label.plain and not label.name else n for n in names)


def _parts(cell: str, label: Label) -> list[str]:
    return [p.strip() for p in re.split("|".join(map(re.escape, label.separator)), cell) if p.strip()]


def _meant(cell: str, words: Mapping[str, str]) -> str | None:
    """The class of a cell; `1.0` is `1`."""
    if cell in words:
        return words[cell]
    value = number(cell)
    return None if value is None else words.get(f"{value:.15g}")

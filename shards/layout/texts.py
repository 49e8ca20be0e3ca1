"""Texts of a sample: from cells, or a text file of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from shards.errors import DataError
from shards.format.describe import HeaderError
from shards.layout.drawn import Drawing
from shards.layout.lines import Line
from shards.layout.places import Hit
from shards.layout.schema import FieldOf, Listing
from shards.pack.manifest import Entry
from shards.tables.instead import AGAIN, LOOKED_AT, instead_of
from shards.tables.table_file import read_text

TEXT = ".txt"


def is_text(one: FieldOf) -> bool:
    """Whether a field holds texts: its templates are of cells, or name text files."""
    return bool(one.text) or (bool(one.path) and all(p.endswith(TEXT) for p in one.path))


def text_of(name: str, one: FieldOf, line: Line, hits: Mapping[str, Hit]) -> str | None:
    """The text of a field, '' where there is none; None of a field that holds no texts.

    Raises:
        Drawing: a file that is no text.
        HeaderError: one that is a web page, or stands for a text in another way.
    """
    if not is_text(one):
        return None
    if one.text:
        return "\n".join(t for template in one.text if (t := line.fill(template)))
    try:
        text = read_text(hits[name][0]) if name in hits else ""
    except DataError as e:
        raise Drawing(f"{hits[name][1]} {e.problems[0].what}") from e
    if text and (found := instead_of(text[:LOOKED_AT].encode())):
        raise HeaderError(f"'{hits[name][1]}' {found[0]}", found[1])
    if "\0" in text:
        raise HeaderError(f"'{hits[name][1]}' has bytes of zero, as a download that was not filled", AGAIN)
    return text if re.search(r"\w", text) else ""


class Lacking:
    """Counts the samples that lack a file which they may lack, by field."""

    def __init__(self, layout: Listing):
        fields = layout.fields.items()
        may = [n for n, f in fields if (f.path and is_text(f)) or ((f.path or f.reference) and f.missing == "absent")]
        self._names, self._count = may, 0
        self._lacking = Counter[str]()

    def seen(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self._count += 1
            self._lacking.update(n for n in self._names if n not in entry.texts and n not in entry.fields)
            yield entry

    def all(self, name: str) -> bool:
        """Whether no sample has the field."""
        return 0 < self._count == self._lacking[name]

    def notes(self) -> Iterator[str]:
        """A line for each field that some samples lack."""
        return (f"{n} of {self._count} samples have no '{name}'" for name in self._names if (n := self._lacking[name]))

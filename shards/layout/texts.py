"""Texts of a sample: from cells, or a text file of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from shards.errors import DataError
from shards.layout.drawn import Drawing
from shards.layout.places import Hit
from shards.layout.rows import Line
from shards.layout.schema import FieldOf, Listing
from shards.pack.manifest import Entry
from shards.tables.table_file import read_text

TEXT = ".txt"


def is_text(one: FieldOf) -> bool:
    """Whether a field holds texts: its templates are of cells, or name text files."""
    return bool(one.text) or (bool(one.path) and all(p.endswith(TEXT) for p in one.path))


def text_of(name: str, one: FieldOf, line: Line, hits: Mapping[str, Hit]) -> str | None:
    """The text of a field, '' where there is none; None of a field that holds no texts.

    Raises:
        Drawing: a file that is no text.
    """
    if not is_text(one):
        return None
    if one.text:
        return "\n".join(t for template in one.text if (t := line.fill(template)))
    try:
        text = read_text(hits[name][0]) if name in hits else ""
    except DataError as e:
        raise Drawing(f"{hits[name][1]} {e.problems[0].what}") from e
    return text if re.search(r"\w", text) else ""


def lacking_texts(layout: Listing, entries: Iterable[Entry]) -> Iterator[str]:
    """A line for each field of text files that some samples lack."""
    entries = list(entries)
    for name, one in layout.fields.items():
        if one.path and is_text(one) and (lacking := sum(name not in e.texts for e in entries)):
            yield f"{lacking} of {len(entries)} samples have no '{name}'"

"""The fields of samples: files as they are or converted, masks and boxes and vectors drawn from cells, texts; by several processes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import Problem
from shards.format.describe import MEND_FILE, HeaderError
from shards.jobs import in_order, usable
from shards.layout import dicom
from shards.layout.begun import Begun, digest
from shards.layout.drawn import Drawing, boxes_of, mask_of_runs, save_array, save_mask
from shards.layout.groups import Group, Groups
from shards.layout.long import Names, features_of, vector
from shards.layout.pictures import Pictures
from shards.layout.places import leaves_root
from shards.layout.schema import Boxes, FieldOf, Listing
from shards.layout.texts import text_of
from shards.pack.entries import Entry
from shards.pack.reference import Reference, parse
from shards.terminal import Progress

PART = 16
"""Samples that a process fills at a time."""
PICTURE = 16
"""Converting one picture is worth as much of a process as packing so many (`shards.jobs.SHARE`)."""


@dataclass
class Part:
    """What a process made of some samples."""

    entries: list[Entry]
    problems: list[Problem]
    films: dicom.Films
    pictures: Pictures


class Parts(Sequence[range]):
    """Numbers of samples, `PART` at a time."""

    def __init__(self, count: int):
        self._count, self._part = count, PART

    def __len__(self) -> int:
        return -(-self._count // self._part)

    def __getitem__(self, at: int) -> range:  # type: ignore[override]
        begin = range(len(self))[at] * self._part
        return range(begin, min(begin + self._part, self._count))


class Filling:
    """Fills entries; `problems`, `films` and `pictures` gather what was seen of all of them."""

    def __init__(self, layout: Listing, args: argparse.Namespace, begun: Begun):
        self.layout, self.args, self.root, self.begun, self.work = layout, args, args.root, begun, begun.work
        self.problems: list[Problem] = []
        self.films = dicom.Films(layout.header.labels, args)
        self.pictures = Pictures(self.work, self.films.develop)
        self.names = Names()
        self.features: dict[str, dict[str, int]] = {}
        """Of fields from long tables: the place of each feature."""

    def find_features(self, groups: Groups, notes: list[str]) -> Iterator[Problem]:
        """The columns of fields from long tables."""
        for name, one in self.layout.fields.items():
            if one.long is None:
                continue
            names = features_of(one.long, (g.line for g in groups))
            self.features[name] = {n: i for i, n in enumerate(names)}
            least = f" that {one.long.least} samples or more have" if one.long.least > 1 else ""
            notes.append(f"{name}: {len(names)} features{least}, from rows of {one.long.table}")
            if not names:
                fix = (
                    "bring the table of these samples, or count rows of other words (long.keep, long.drop, long.least)"
                )
                yield Problem(f"no feature of '{name}' is left", one.long.table, fix)

    def all(self, groups: Groups, entries: Sequence[Entry], notes: list[str]) -> Iterator[Entry]:
        """The entries with their fields, by several processes where files have to be converted; the result is the same for any number."""
        made = any(f.runs for f in self.layout.fields.values())
        converted = made or any(p.are_converted() for p in groups.places.values())
        jobs = usable(self.args.jobs, len(groups) * PICTURE) if converted else 1
        places = Parts(len(groups))
        before = 0
        with (
            Progress("read", len(groups), "samples") as progress,
            closing(in_order(self._work(groups, entries, converted), places, jobs)) as parts,
        ):
            for place, part in zip(places, parts, strict=True):
                self.problems += part.problems
                self.films.merge(part.films)
                self.pictures.merge(part.pictures)
                before += len(part.entries) * part.pictures.there
                yield from part.entries
                progress.reached(place.stop)
        notes += [f"{before} of {len(groups)} samples were converted by a killed command"] if before else []

    def _work(self, groups: Groups, entries: Sequence[Entry], converted: bool) -> Callable[[range], Part]:
        return lambda place: self._part(groups, entries, converted, place)

    def _part(self, groups: Groups, entries: Sequence[Entry], converted: bool, place: range) -> Part:
        """Fields of some samples, and what was seen of them alone; `converted`: which is worth a page of the book."""
        films = dicom.Films(self.layout.header.labels, self.args)
        one = copy(self)
        one.problems, one.films, one.pictures = [], films, Pictures(self.work, films.develop)
        these, filled = [groups[i] for i in place], [entries[i] for i in place]
        stamp = digest(self.features, *[g.stamp() for g in these]) if converted else ""
        if converted and (said := self.begun.page(place.start // PART, stamp)) is not None:
            one.pictures.there = True
            films.load(self.work, said)
        for group, entry in zip(these, filled, strict=True):
            one._fill(group, entry)
        if converted and not (one.pictures.there or one.problems or one.pictures.refused):
            self.begun.note(place.start // PART, stamp, one.pictures.made, films.dump(self.work))
        return Part(filled, one.problems, films, one.pictures)

    def _fill(self, group: Group, entry: Entry) -> None:
        for name, one in self.layout.fields.items():
            try:
                if (text := text_of(name, one, group.line, group.hits)) is not None:
                    entry.texts |= {name: text} if text else {}
                elif (found := self._field(name, one, group)) is not None:
                    entry.fields[name] = found
            except (Drawing, HeaderError) as e:
                where = f"{group.line.where}, field '{name}'"
                own = e.fix if isinstance(e, HeaderError) and e.fix != MEND_FILE else None
                self.problems.append(Problem(str(e), where, own or "mend the cells, or take the row out of the table"))
        if "image" in group.hits:
            entry.labels |= self.films.labels(group.hits["image"][1])

    def _field(self, name: str, one: FieldOf, group: Group) -> Reference | None:
        if one.path:
            hit = group.hits.get(name)
            return self.pictures.reference(name, group.key, *hit) if hit else None
        if one.reference is not None:
            return self._reference(one, group.line.fill(one.reference))
        if (long := one.long) is not None:
            x_D = vector(long, self.features[name], group.line)
            shown = f"{group.line.where}, {long.table}"
            if x_D is None:
                return None
            return Reference(shown, self.pictures.drawn(name, f"{group.key}.npy", lambda path: save_array(x_D, path)))
        if (runs := one.runs) is not None:
            cells = [line.cells[runs.column] for line in group.lines]
            draw = lambda path: save_mask(mask_of_runs(cells, runs), path)  # noqa: E731
            return Reference(f"{group.line.where}, {runs.column}", self.pictures.drawn(name, f"{group.key}.png", draw))
        assert one.boxes is not None
        array = _boxes(one.boxes, group)
        shown = f"{group.line.where}, boxes"
        if array is None:
            return None
        return Reference(shown, self.pictures.drawn(name, f"{group.key}.npy", lambda path: save_array(array, path)))

    def _reference(self, one: FieldOf, text: str) -> Reference | None:
        if leaves_root(text):
            raise Drawing(f"'{text}' lies outside the root")
        found = parse(text, self.root) if text else None
        absent = found and found.is_table and one.missing == "absent" and not self.names.has(found)
        return None if absent else found

    def vocabulary(self, name: str) -> Path:
        """A file of the names of a field's features."""
        path = self.work / name / "features.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{f}\n" for f in self.features[name]), encoding="utf-8")
        return path


def _boxes(boxes: Boxes, group: Group) -> np.ndarray | None:
    """The boxes of a sample.

    Raises:
        Drawing: what `boxes_of` raises; a row that stands twice, whose box would be two.
    """
    rows: Sequence[Mapping[str, str]] = [line.cells for line in group.lines]
    rows = group.line.more(boxes.table) if boxes.table else rows
    found = boxes_of([[row[c] for c in boxes.columns] for row in rows], boxes)
    boxed = [tuple(row.items()) for row in rows if any(row[c] for c in boxes.columns)]
    if len(set(boxed)) < len(boxed):
        raise Drawing("a row with a box stands twice, with the same in all cells that the layout reads")
    return found

"""A layout and a folder become a manifest: rows, files, fields, labels and splits, with everything that is wrong told at once.

Rows are held in columns (`lines`), samples as numbers of rows (`groups`), entries on disk: some 200 bytes a sample at most.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.errors import DataError, Problem, bad, typed
from shards.format.describe import HeaderError
from shards.layout import dicom
from shards.layout.answers import Answers
from shards.layout.begun import Begun, digest, is_begun, lacks_room, remove
from shards.layout.choice import Choice, LeftOut
from shards.layout.filling import Filling
from shards.layout.groups import Group, Groups, cell_of
from shards.layout.lines import Line, Lines
from shards.layout.long import of_nobody, of_wide_tables
from shards.layout.places import Places
from shards.layout.published import Published
from shards.layout.rows import lines_of
from shards.layout.schema import FieldOf, Listing
from shards.layout.texts import Lacking
from shards.pack.entries import Entry, bare, forms_of, stored
from shards.pack.entry_checks import entry_problems
from shards.pack.labels import label_rule, settle
from shards.pack.manifest import Manifest
from shards.pack.volumes import Volumes, slices_of
from shards.tables.identity import few
from shards.tables.repeats import distinct
from shards.tables.unknown import words_of

PUBLISHED, BY_PATIENT = "published", "patient"


@dataclass
class Laid:
    """What the engine made of a folder; the fields are those of `shards.sources.Found`."""

    manifest: Manifest
    notes: list[str] = field(default_factory=list)
    unmatched: Sequence[tuple[str, str]] = ()
    pack: dict[str, Any] = field(default_factory=dict)


def options(parser: argparse.ArgumentParser) -> None:
    """What every layout asks."""
    parser.add_argument("--root", type=Path, required=True, help="folder that the set was unpacked in")
    parser.add_argument("--partial", action="store_true", help="leave rows out whose files are not there")
    parser.add_argument(
        "--splits",
        choices=(PUBLISHED, BY_PATIENT),
        default=PUBLISHED,
        help="the published splits where the layout has them (default), or splits by patient",
    )
    parser.add_argument("--views", help="keep only these views, comma-separated (of layouts that tell views)")
    parser.add_argument("--work", type=Path, help="folder for converted images while packing (default: OUT-work)")
    dicom.options(parser)


def find(layout: Listing, args: argparse.Namespace) -> Laid:
    """The manifest of a set.

    Raises:
        DataError: everything that is wrong with tables and files, by kind.
    """
    work = args.work or Path(f"{args.out}-work")
    begun = Begun(work, digest(layout.model_dump(), str(args.root.resolve()), args.window, args.burned_in))
    try:
        return _Finder(layout, args, begun).find()
    except BaseException as e:
        if not (is_begun(work) and (isinstance(e, KeyboardInterrupt) or lacks_room(e))):
            remove(work)
        raise


class _Finder:
    def __init__(self, layout: Listing, args: argparse.Namespace, begun: Begun):
        self.layout, self.args, self.root = layout, args, args.root
        self.notes = [*layout.notes, *([layout.patient.note] if layout.patient.note else [])]
        self.unmatched = LeftOut()
        self.problems: list[Problem] = []
        self.answers = Answers(layout, words_of(args))
        self.filling = Filling(layout, args, begun)

    def find(self) -> Laid:
        lines = lines_of(self.layout, self.root, self.notes)
        choice = Choice(self.layout, self.args, lines, self.answers, self.notes, self.unmatched)
        groups = self._groups(lines, choice.rows)
        self._place(groups, choice.dropped)
        self.problems += self.filling.find_features(groups, self.notes)
        self.problems += of_wide_tables(self.layout, self.root, self.notes)
        entries = stored(self._entry(g) for g in groups)
        self.problems += self.answers.problems()
        self._stop()
        entries = self._filled(groups, entries)
        total = len(lines)
        del lines, groups, choice
        return self._laid(entries, total)

    def _stop(self) -> None:
        """Raises:
        DataError: what is wrong so far.
        """
        if self.problems:
            raise DataError(self.problems)

    # ----------------------------------------------------------------------------------------------------------------- rows

    def _groups(self, lines: Lines, rows: Sequence[int]) -> Groups:
        groups = Groups(lines, rows, self.layout.sample, self.layout.several)
        if lost := groups.lost:
            some = few([lines.where(row) for row in lost[:4]])
            what = f"{len(lost)} rows name no sample ({some})"
            self.problems.append(Problem(what, str(self.root), "fill the cells, or take the rows out"))
        if self.layout.several:
            self.notes.append(f"{len(rows)} rows of {len(groups)} samples")
        return groups

    def _place(self, groups: Groups, dropped: Sequence[int]) -> None:
        """Finds the files of all fields; leaves the samples out that lack one."""
        for name, one in self.layout.fields.items():
            if not one.path:
                continue
            groups.places[name] = places = Places(self.root, name, one, groups.lines)
            for number in range(groups.whole):
                places.add(groups.head(number))
            unused = places.unused(dropped)
            self.problems += places.problems(self.args.partial)
            self.notes += places.notes()
            if unused:
                self.notes.append(f"{len(unused)} files for '{name}' are in no table, such as {unused[0]}")
            self.problems += _cut(groups.lines.open_ends, name, len(unused))
            self.unmatched.extend((n, f"a file for '{name}' that the tables do not list") for n in unused)
        lacking = groups.leave_out_lacking()
        if lacking and self.args.partial:
            self.notes.append(f"{len(lacking)} of {groups.whole} samples lack a file and are left out (--partial)")
            self.unmatched.extend((groups.lacks(number), "no such file (--partial)") for number in lacking)
        if not len(groups) and not self.problems:
            what = f"each of {groups.whole} samples lacks a file of one field or another"
            raise bad(what, self.root, "finish the download")

    def _entry(self, group: Group) -> Entry:
        """Patient, labels and split, in which all rows of a sample must agree."""
        line = group.line
        entry = Entry(line.where, group.key, cell_of(self.layout.patient, line), labels=self.answers(line))
        entry.split = self._split(line)
        for other in group.lines[1:]:
            same = cell_of(self.layout.patient, other), self.answers(other), self._split(other)
            if same != (entry.patient, entry.labels, entry.split):
                what = (
                    f"sample '{group.key}' has rows that differ in patient, label or split: {line.where}, {other.where}"
                )
                self.problems.append(Problem(what, other.where, "mend the rows: they are of one image"))
        return entry

    def _split(self, line: Line) -> str | None:
        splits = self.layout.splits
        if splits is None or splits.column is None or not self._published():
            return None
        word = line.cells[splits.column]
        return splits.words.get(word, word)

    def _published(self) -> bool:
        return self.layout.splits is not None and self.args.splits == PUBLISHED and not self.args.split_list

    # --------------------------------------------------------------------------------------------------------------- fields

    def _filled(self, groups: Groups, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The entries with their fields."""
        films, pictures, lacking = self.filling.films, self.filling.pictures, Lacking(self.layout)
        cut: list[Problem] = []
        filled = lacking.seen(self.filling.all(groups, entries, self.notes))
        made = stored(self._sliced(filled, cut))
        self.notes += lacking.notes()
        self.problems += of_nobody(self.layout, self.root, lacking.all)
        self.problems += [*self.filling.problems, *cut, *pictures.problems(self.root), *films.settle(self.notes)]
        self._stop()
        return made

    def _sliced(self, entries: Iterable[Entry], problems: list[Problem]) -> Iterator[Entry]:
        """The slices of each entry's volumes, where the layout cuts them."""
        volumes = Volumes()
        for entry in entries:
            if self.layout.slices is None:
                yield entry
                continue
            try:
                yield from slices_of(entry, self.layout.slices, volumes)
            except HeaderError as e:
                problems.append(Problem(str(e), entry.where, e.fix))

    # -------------------------------------------------------------------------------------------------------------- as a whole

    def _laid(self, entries: Sequence[Entry], total: int) -> Laid:
        layout, filling = self.layout, self.filling
        kinds = self.answers.kinds | dict.fromkeys(layout.header.labels.values(), "class")
        problems: list[Problem] = []
        if self._published():
            assert layout.splits is not None
            entries = Published(layout.splits, self.root, self.notes, self.unmatched, problems)(entries)
        settled = settle(entries, list(kinds), label_rule(self.args), kinds=kinds)
        problems += [*settled.problems, *entry_problems(entries)]
        people = distinct(e.patient for e in bare(entries))
        self.notes.append(f"{len(entries)} samples of {people} patients from {total} rows")
        self.notes += self.unmatched.reasons()
        bits = {n: {"bits": str(filling.films.bits)} for n in filling.pictures.of_films if filling.films.bits}
        meanings = {n: {**f.meaning, **_of_boxes(f), **bits.get(n, {})} for n, f in layout.fields.items()}
        there = forms_of(entries).names
        pack = {
            "meanings": {n: m for n, m in meanings.items() if m},
            "dtypes": {n: "float32" for n, f in layout.fields.items() if f.boxes and n in there},
            "vocab": {n: filling.vocabulary(n) for n in filling.features},
            "scratch": filling.work,
        }
        return Laid(Manifest(entries, settled.kinds, problems, settled.notes), self.notes, self.unmatched, pack)


def _cut(tables: Sequence[Path], name: str, unused: int) -> Iterator[Problem]:
    """Tables that end within a line while files are in none of them."""
    for table in tables if unused else ():
        what = f"its last line has no end, and {unused} files for '{name}' are in no table, as after a cut download"
        yield Problem(what, str(table), f"download it again, or, if it is whole, end the line: echo >> {typed(table)}")


def _of_boxes(one: FieldOf) -> dict[str, str]:
    return {"box": one.boxes.form, "unit": "px"} if one.boxes else {}

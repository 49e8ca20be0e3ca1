"""A layout and a folder become a manifest: rows, files, fields, labels and splits, with everything that is wrong told at once."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shards.errors import DataError, Problem, bad
from shards.format.describe import HeaderError
from shards.jobs import in_order, usable
from shards.layout import dicom
from shards.layout.answers import Answers
from shards.layout.begun import Begun, digest, is_begun, lacks_room, remove
from shards.layout.drawn import Drawing, boxes_of, mask_of_runs, save_array, save_mask
from shards.layout.long import Names, features_of, vector
from shards.layout.pictures import Pictures, is_converted
from shards.layout.places import Hit, Places, leaves_root
from shards.layout.published import Published
from shards.layout.rows import Line, lines_of
from shards.layout.schema import Cell, FieldOf, Listing
from shards.layout.texts import lacking_texts, text_of
from shards.pack.entries import Entry, stored
from shards.pack.keys import short_keys
from shards.pack.labels import label_rule, settle
from shards.pack.manifest import Manifest, entry_problems
from shards.pack.reference import Reference, parse
from shards.pack.volumes import Volumes, slices_of
from shards.tables.identity import few
from shards.tables.unknown import words_of
from shards.terminal import Progress

PUBLISHED, BY_PATIENT = "published", "patient"
PART = 16
"""Samples that a process fills at a time."""
PICTURE = 16
"""Converting one picture is worth as much of a process as packing so many (`shards.jobs.SHARE`)."""
ENDING = re.compile(r"\.(?:jpe?g|png|bmp|tiff?|dcm|dicom)$", re.IGNORECASE)


@dataclass
class Laid:
    """What the engine made of a folder; the fields are those of `shards.sources.Found`."""

    manifest: Manifest
    notes: list[str] = field(default_factory=list)
    unmatched: list[tuple[str, str]] = field(default_factory=list)
    pack: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """The rows of one sample; its first is the one that files are looked up by."""

    key: str
    lines: list[Line]
    hits: dict[str, Hit] = field(default_factory=dict)

    @property
    def line(self) -> Line:
        return self.lines[0]

    def stamp(self) -> list[object]:
        """What its files are made from: cells, and files by size and time."""
        files = {n: [shown, (s := file.stat()).st_size, s.st_mtime_ns] for n, (file, shown) in self.hits.items()}
        return [self.key, files, [line.said() for line in self.lines]]


@dataclass
class Part:
    """What a process made of some samples."""

    entries: list[Entry]
    problems: list[Problem]
    films: dicom.Films
    pictures: Pictures


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
        self.layout, self.args, self.root, self.begun, self.work = layout, args, args.root, begun, begun.work
        self.notes = [*layout.notes, *([layout.patient.note] if layout.patient.note else [])]
        self.unmatched: list[tuple[str, str]] = []
        self.problems: list[Problem] = []
        self.dropped: list[Line] = []
        self.answers = Answers(layout, words_of(args))
        self.films = dicom.Films(layout.header.labels, args)
        self.pictures = Pictures(self.work, self.films.develop)
        self.names = Names()
        self.features: dict[str, dict[str, int]] = {}
        """Of fields from long tables: the place of each feature."""

    def find(self) -> Laid:
        lines = lines_of(self.layout, self.root, self.notes)
        total = len(lines)
        lines = self._chosen(lines)
        groups = self._groups(lines)
        groups = self._placed(groups)
        self._find_features(groups)
        entries = [self._entry(g) for g in groups]
        self.problems += self.answers.problems()
        if self.problems:
            raise DataError(self.problems)
        self._fill_all(groups, entries)
        entries = self._sliced(entries)
        self.problems += [*self.pictures.problems(self.root), *self.films.settle(self.notes)]
        if self.problems:
            raise DataError(self.problems)
        return self._laid(entries, total)

    # ----------------------------------------------------------------------------------------------------------------- rows

    def _chosen(self, lines: list[Line]) -> list[Line]:
        """Without the rows that the layout excludes and the views that are not wanted."""
        views = [v.strip() for v in (self.args.views or "").split(",") if v.strip()]
        if views and not self.layout.view:
            raise bad("this layout tells no views", "--views", "leave it out")
        kept, counts = [], Counter[str]()
        for line in lines:
            view = self.answers.view(line)
            counts[view or "not known"] += 1
            why = next((e.why for e in self.layout.exclude if _excluded(line.cells[e.column], e.keep, e.drop)), None)
            if why is None and views and view not in views:
                why = f"view {view or 'not known'} (--views)"
            if why is None:
                kept.append(line)
            else:
                self.dropped.append(line)
                self.unmatched.append((line.where, why))
        if self.layout.view:
            self.notes.append(f"views: {', '.join(f'{n} {v}' for v, n in counts.most_common())}")
        if odd := [v for v in views if v not in counts]:
            raise bad(f"no row has the view '{odd[0]}'", "--views", f"views are {', '.join(counts)}")
        if not kept:
            raise bad(f"none of {len(lines)} rows is left", self.root, "they are all excluded: bring the whole set")
        return kept

    def _groups(self, lines: list[Line]) -> list[Group]:
        names = [_cell(self.layout.sample, line) for line in lines]
        if lost := [line.where for line, n in zip(lines, names, strict=True) if not n]:
            what = f"{len(lost)} rows name no sample ({few(lost)})"
            self.problems.append(Problem(what, str(self.root), "fill the cells, or take the rows out"))
        keys = short_keys([ENDING.sub("", n) for n in names], names)
        if not self.layout.several:
            return [Group(k, [line]) for k, line in zip(keys, lines, strict=True)]
        # By names, not by keys: two names that become one key are two samples, which is refused later.
        of: dict[str, Group] = {}
        for name, key, line in zip(names, keys, lines, strict=True):
            of.setdefault(name, Group(key, [])).lines.append(line)
        self.notes.append(f"{len(lines)} rows of {len(of)} samples")
        return list(of.values())

    # ---------------------------------------------------------------------------------------------------------------- files

    def _placed(self, groups: list[Group]) -> list[Group]:
        """Finds the files of all fields; with --partial without the samples that lack one."""
        lacking: dict[int, str] = {}
        for name, one in self.layout.fields.items():
            if not one.path:
                continue
            places = Places(self.root, name, one)
            for group in groups:
                if hit := places(group.line):
                    group.hits[name] = hit
            self.problems += places.problems(len(groups), self.args.partial)
            lacking |= {id(line): file for line, file in places.lacking()}
            self.notes += places.notes()
            places.left_out(self.dropped)
            unused = places.unused()
            self.notes += (
                [f"{len(unused)} files for '{name}' are in no table, such as {unused[0][0]}"] if unused else []
            )
            self.unmatched += unused
        if lacking and self.args.partial:
            self.notes.append(f"{len(lacking)} of {len(groups)} samples lack a file and are left out (--partial)")
            self.unmatched += [(file, "no such file (--partial)") for file in lacking.values()]
        kept = [g for g in groups if id(g.line) not in lacking]
        if not kept and not self.problems:
            what = f"each of {len(groups)} samples lacks a file of one field or another"
            raise bad(what, self.root, "finish the download")
        return kept

    def _entry(self, group: Group) -> Entry:
        """Patient, labels and split, in which all rows of a sample must agree."""
        line = group.line
        entry = Entry(line.where, group.key, _cell(self.layout.patient, line), labels=self.answers(line))
        entry.split = self._split(line)
        for other in group.lines[1:]:
            same = _cell(self.layout.patient, other), self.answers(other), self._split(other)
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

    def _fill_all(self, groups: list[Group], entries: list[Entry]) -> None:
        """Fields of all samples, by several processes where files have to be converted; the result is the same for any number."""
        made = any(f.runs for f in self.layout.fields.values())
        converted = made or any(is_converted(file) for g in groups for file, _ in g.hits.values())
        jobs = usable(self.args.jobs, len(groups) * PICTURE) if converted else 1
        places = [range(i, min(i + PART, len(groups))) for i in range(0, len(groups), PART)]
        work = partial(self._part, groups, entries, converted)
        before = 0
        with Progress("read", len(groups), "samples") as progress, closing(in_order(work, places, jobs)) as parts:
            for place, part in zip(places, parts, strict=True):
                self.problems += part.problems
                self.films.merge(part.films)
                self.pictures.merge(part.pictures)
                before += len(part.entries) * part.pictures.there
                for i, filled in zip(place, part.entries, strict=True):
                    entries[i] = filled
                progress.reached(place.stop)
        self.notes += [f"{before} of {len(groups)} samples were converted by a killed command"] if before else []

    def _find_features(self, groups: list[Group]) -> None:
        for name, one in self.layout.fields.items():
            if one.long is None:
                continue
            names = features_of(one.long, (g.line for g in groups))
            self.features[name] = {n: i for i, n in enumerate(names)}
            least = f" that {one.long.least} samples or more have" if one.long.least > 1 else ""
            self.notes.append(f"{name}: {len(names)} features{least}, from rows of {one.long.table}")
            if not names:
                fix = (
                    "bring the table of these samples, or count rows of other words (long.keep, long.drop, long.least)"
                )
                self.problems.append(Problem(f"no feature of '{name}' is left", one.long.table, fix))

    def _sliced(self, entries: list[Entry]) -> list[Entry]:
        """The slices of each entry's volumes, where the layout cuts them; says of whom there is no text."""
        self.notes += lacking_texts(self.layout, entries)
        if self.layout.slices is None:
            return entries
        volumes, cut = Volumes(), list[Entry]()
        for entry in entries:
            try:
                cut += slices_of(entry, self.layout.slices, volumes)
            except HeaderError as e:
                self.problems.append(Problem(str(e), entry.where, e.fix))
        return cut

    def _part(self, groups: list[Group], entries: list[Entry], converted: bool, place: range) -> Part:
        """Fields of some samples, and what was seen of them alone; `converted`: which is worth a page of the book."""
        films = dicom.Films(self.layout.header.labels, self.args)
        one = copy(self)
        one.problems, one.films, one.pictures = [], films, Pictures(self.work, films.develop)
        stamp = digest(self.features, *[groups[i].stamp() for i in place]) if converted else ""
        if converted and (said := self.begun.page(place.start // PART, stamp)) is not None:
            one.pictures.there = True
            films.load(self.work, said)
        for i in place:
            one._fill(groups[i], entries[i])
        if converted and not (one.pictures.there or one.problems or one.pictures.refused):
            self.begun.note(place.start // PART, stamp, one.pictures.made, films.dump(self.work))
        return Part([entries[i] for i in place], one.problems, films, one.pictures)

    def _fill(self, group: Group, entry: Entry) -> None:
        for name, one in self.layout.fields.items():
            try:
                if (text := text_of(name, one, group.line, group.hits)) is not None:
                    entry.texts |= {name: text} if text else {}
                elif (found := self._field(name, one, group)) is not None:
                    entry.fields[name] = found
            except (Drawing, HeaderError) as e:
                where = f"{group.line.where}, field '{name}'"
                self.problems.append(Problem(str(e), where, "mend the cells, or take the row out of the table"))
        if "image" in group.hits:
            entry.labels |= self.films.labels(group.hits["image"][1])

    def _field(self, name: str, one: FieldOf, group: Group) -> Reference | None:
        if one.path:
            hit = group.hits.get(name)
            return self.pictures.reference(name, group.key, *hit) if hit else None
        if one.reference is not None:
            text = group.line.fill(one.reference)
            if leaves_root(text):
                raise Drawing(f"'{text}' lies outside the root")
            found = parse(text, self.root) if text else None
            absent = found and found.is_table and one.missing == "absent" and not self.names.has(found)
            return None if absent else found
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
        rows = group.line.more.get(one.boxes.table, []) if one.boxes.table else [line.cells for line in group.lines]
        array = boxes_of([[row[c] for c in one.boxes.columns] for row in rows], one.boxes)
        shown = f"{group.line.where}, boxes"
        if array is None:
            return None
        return Reference(shown, self.pictures.drawn(name, f"{group.key}.npy", lambda path: save_array(array, path)))

    # -------------------------------------------------------------------------------------------------------------- as a whole

    def _laid(self, entries: list[Entry], total: int) -> Laid:
        layout = self.layout
        kinds = self.answers.kinds | dict.fromkeys(layout.header.labels.values(), "class")
        problems: list[Problem] = []
        if self._published():
            assert layout.splits is not None
            entries = Published(layout.splits, self.root, self.notes, self.unmatched, problems)(entries)
        settled = settle(entries, list(kinds), label_rule(self.args), kinds=kinds)
        problems += [*settled.problems, *entry_problems(entries)]
        people = len({e.patient for e in entries})
        self.notes.append(f"{len(entries)} samples of {people} patients from {total} rows")
        self.notes += [f"  {n} x {why}" for why, n in Counter(w for _, w in self.unmatched).most_common()]
        manifest = Manifest(stored(entries), settled.kinds, problems, settled.notes)
        bits = {n: {"bits": str(self.films.bits)} for n in self.pictures.of_films if self.films.bits}
        meanings = {n: {**f.meaning, **_of_boxes(f), **bits.get(n, {})} for n, f in layout.fields.items()}
        pack = {
            "meanings": {n: m for n, m in meanings.items() if m},
            "dtypes": {
                n: "float32" for n, f in layout.fields.items() if f.boxes and any(n in e.fields for e in entries)
            },
            "vocab": {n: self._vocabulary(n, list(at)) for n, at in self.features.items()},
            "scratch": self.work,
        }
        return Laid(manifest, self.notes, self.unmatched, pack)

    def _vocabulary(self, name: str, features: list[str]) -> Path:
        path = self.work / name / "features.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{f}\n" for f in features), encoding="utf-8")
        return path


def _excluded(cell: str, keep: Sequence[str], drop: Sequence[str]) -> bool:
    return cell in drop or bool(keep and cell not in keep)


def _cell(cell: Cell, line: Line) -> str:
    text = line.fill(cell.value)
    if cell.pattern is None or not text:
        return text
    found = re.search(cell.pattern, text)
    return "_".join(g for g in found.groups() if g) if found else ""


def _of_boxes(one: FieldOf) -> dict[str, str]:
    return {"box": one.boxes.form, "unit": "px"} if one.boxes else {}

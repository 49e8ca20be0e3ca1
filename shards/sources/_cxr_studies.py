"""A study as one sample: up to three images of one examination, `image`, `image_2`, `image_3`, and its one report.

A study is one patient's: its name is that of its folder (MIMIC-CXR, CheXpert), or a cell of a column. Which image comes first is said by
_cxr_views.py. Images beyond the third are left out, counted and listed. What the lines of a study contradict each other in (report, label,
split) is refused; a blank contradicts nothing.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from shards.errors import DataError, Problem, bad
from shards.pack.manifest import Entry
from shards.sources._cxr_layouts import Film, columns_named
from shards.sources._cxr_views import BY_POSITION, Views, view_options, views_of
from shards.tables.cells import number
from shards.tables.identity import few, person, study
from shards.tables.keyed import Rows, no_column
from shards.tables.unknown import words_of

STUDY_COLUMNS = (
    "study", "study_id", "studyid", "exam", "exam_id", "accession", "accession_number", "accessionnumber", "study_instance_uid",
    "studyinstanceuid",
)  # fmt: skip
FIELDS = ("image", "image_2", "image_3")
V = TypeVar("V", bound="str | float")
PER_IMAGE = "or pack a sample an image: --per image"
BEYOND = f"an image beyond the {len(FIELDS)} of its study"
FLAGS = ("study_column", "view_column", "views", "view_order")


@dataclass
class Line:
    """A film that can be used; `report` says how its report went, None where none was asked for."""

    film: Film
    entry: Entry
    report: str | None = None


def study_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--per",
        choices=("image", "study"),
        default="image",
        help="a sample is an image, or a study with up to three of them and one report (image, image_2, image_3)",
    )
    parser.add_argument("--study-column", help="default: the folder of MIMIC-CXR or CheXpert, or study, study_id, ...")
    view_options(parser)


def check_flags(args: argparse.Namespace) -> None:
    """Refuses options of studies where a sample is an image."""
    given = [f"--{f.replace('_', '-')}" for f in FLAGS if getattr(args, f) is not None]
    if args.per == "image" and given:
        what = f"{', '.join(given)}: of studies, and a sample is an image"
        raise bad(what, args.csv, f"add --per study, or leave {' and '.join(given)} out")


@dataclass(frozen=True)
class Studies:
    """Of each film its study's name ('' where it has none), and its view."""

    names: list[str]
    views: Views
    notes: list[str]


def studies_of(
    args: argparse.Namespace, rows: Rows, image_column: str | None, films: Sequence[Film], people: Sequence[str]
) -> Studies:
    """The studies of the films of a table.

    Raises:
        DataError: nothing names the studies; column and folders part the images differently; no view positions.
    """
    folders = [f.study_folder for f in films]
    column = _study_column(args, rows, any(folders))
    unknown = words_of(args)
    given = ["" if column is None or unknown(f.row[column]) else f.row[column] for f in films]
    if column is not None:
        _same_parts(args, column, films, people, given)
    names = given if args.study_column else [f or g for f, g in zip(folders, given, strict=True)]
    notes = [f"studies from '{column}'" if args.study_column or not any(folders) else "studies by folder"]
    of_name: dict[str, set[str]] = defaultdict(set)
    for name, who in zip(names, people, strict=True):
        of_name[study(name)] |= {person(who)} if name else set()
    shared = sum(len(p) > 1 for p in of_name.values())
    notes[0] += f"; {shared} names stand with several patients, and are one study of each" if shared else ""
    return Studies(names, views_of(args, rows, image_column, films), notes)


def _study_column(args: argparse.Namespace, rows: Rows, by_folder: bool) -> str | None:
    if args.study_column is not None:
        if args.study_column not in rows.columns:
            raise DataError(no_column([args.study_column], "--study-column", args.csv, rows.columns))
        return str(args.study_column)
    found = list(columns_named(rows.columns, STUDY_COLUMNS))
    if not found and not by_folder:
        fix = f"name it with --study-column, {PER_IMAGE}; columns: {', '.join(rows.columns)}"
        raise bad(
            "no column with the study of an image, and no folder of MIMIC-CXR or CheXpert that is one", args.csv, fix
        )
    return found[0] if found else None


def _same_parts(
    args: argparse.Namespace, column: str, films: Sequence[Film], people: Sequence[str], given: Sequence[str]
) -> None:
    """Refuses a column by which images lie together that lie apart in folders, or the other way round."""
    pairs: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for film, who, name in zip(films, people, given, strict=True):
        if film.study_folder and name:
            pairs[person(who), f"folder {film.study_folder}"].setdefault(study(name), film.row.where)
            pairs[person(who), f"study {study(name)}"].setdefault(film.study_folder, film.row.where)
    torn = [f"{name}: {' and '.join(list(where.values())[:2])}" for (_, name), where in pairs.items() if len(where) > 1]
    if torn:
        what = f"column '{column}' and the folders part the images into other studies, in {len(torn)} of them ({few(torn)})"
        raise bad(what, args.csv, f"mend the column, or name another one with --study-column, {PER_IMAGE}")


@dataclass
class Merged:
    """Samples of studies; `reports` counts how theirs went, `sizes` their images, `left_out` are (path, why) of images."""

    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reports: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    meanings: dict[str, dict[str, str]] = field(default_factory=dict)


def merged(
    args: argparse.Namespace,
    lines: Sequence[tuple[Line, int]],
    studies: Studies,
    key_of: Callable[[Sequence[str], Sequence[str]], list[str]],
    with_report: str,
) -> Merged:
    """One sample a study.

    Args:
        lines: the films that can be used, with their numbers among all films.
        key_of: short keys of names, and what tells those apart that are cut.
        with_report: how a report went that is there.
    """
    groups: dict[tuple[str, str], list[tuple[Line, int]]] = defaultdict(list)
    for line, at in lines:
        groups[person(line.entry.patient), study(studies.names[at])].append((line, at))
    for group in groups.values():
        group.sort(key=lambda pair: studies.views.order[pair[1]])
    names = [studies.names[g[0][1]] for g in groups.values()]
    whole = [f"{g[0][0].entry.patient}_{n}" for g, n in zip(groups.values(), names, strict=True)]
    faults, out = _Faults(args.csv), Merged()
    keys = key_of(names if len({study(n) for n in names}) == len(names) else whole, whole)
    for group, key in zip(groups.values(), keys, strict=True):
        _add_study(out, [line for line, _ in group], key, faults, with_report, args.empty == "drop")
    out.problems = [*_doubled(lines, args.csv), *faults.problems()]
    out.notes = [*_sizes(out), *studies.notes, *studies.views.notes]
    order = args.view_order or BY_POSITION
    out.meanings = {name: {"study_view": f"{i + 1} of {len(FIELDS)}, {order}"} for i, name in enumerate(FIELDS)}
    return out


def _add_study(out: Merged, lines: list[Line], key: str, faults: _Faults, with_report: str, drop: bool) -> None:
    """Makes a sample of the lines of a study, the first view first."""
    found = [line.report for line in lines if line.report]
    status = with_report if with_report in found else found[0] if found else None
    out.reports.update([status] if status else [])
    if drop and status not in (None, with_report):
        out.left_out += [(line.film.path, str(status)) for line in lines]
        return
    out.sizes[min(len(lines), len(FIELDS) + 1)] += 1
    out.left_out += [(line.film.path, BEYOND) for line in lines[len(FIELDS) :]]
    first = lines[0].entry
    entry = replace(first, sample=key, labels={}, fields={}, texts={})
    for name, line in zip(FIELDS, lines, strict=False):
        entry.fields[name] = line.entry.fields["image"]
    entry.split = faults.one("split", key, [(line.entry.split, line) for line in lines])
    for line in lines:
        if "report" in line.entry.texts:
            entry.texts.setdefault("report", line.entry.texts["report"])
    faults.one("report", key, [(_words(line.entry.texts.get("report")), line) for line in lines])
    for name in dict.fromkeys(n for line in lines for n in line.entry.labels):
        value = faults.one(f"label '{name}'", key, [(line.entry.labels.get(name), line) for line in lines])
        if value is not None:
            entry.labels[name] = value
    out.entries.append(entry)


def _words(text: str | None) -> str | None:
    """A text by which two are compared: blanks and line ends do not count."""
    return None if text is None else " ".join(text.split())


class _Faults:
    """What lines of one study contradict each other in, gathered by what it is."""

    FIXES = (
        ("report", f"keep one text for all images of a study, or name the column of studies with --study-column, {PER_IMAGE}"),
        ("split", f"put all images of a study into one split, {PER_IMAGE}"),
        ("label", f"keep the columns that are of single images out with --label-columns, {PER_IMAGE}"),
    )  # fmt: skip

    def __init__(self, table: Path):
        self.table = table
        self.found: dict[str, list[str]] = defaultdict(list)

    def one(self, what: str, key: str, values: Iterable[tuple[V | None, Line]]) -> V | None:
        """The value that all lines have which have any; the first where they differ, which is remembered."""
        known = [(v, line) for v, line in values if v not in (None, "")]
        other = next((line for v, line in known if not _same(v, known[0][0])), None)
        if other is not None:
            self.found[what].append(f"{key}: {known[0][1].entry.where} and {other.entry.where}")
        return known[0][0] if known else None

    def problems(self) -> Iterator[Problem]:
        for what, places in self.found.items():
            fix = next(fix for word, fix in self.FIXES if what.startswith(word))
            said = "two reports for one study" if what == "report" else f"{what} differs among the images of a study"
            yield Problem(f"{len(places)} x {said} ({few(places)})", str(self.table), fix)


def _same(a: object, b: object) -> bool:
    if a == b:
        return True
    x, y = number(str(a)), number(str(b))
    return x is not None and x == y


def _doubled(lines: Sequence[tuple[Line, int]], table: Path) -> Iterator[Problem]:
    """Images that the table lists twice: they would be two views of one study."""
    first: dict[Path, str] = {}
    twice = []
    for line, _ in lines:
        path, where = line.entry.fields["image"].path, line.entry.where
        if path in first:
            twice.append(f"{line.film.path}: {first[path]} and {where}")
        first.setdefault(path, where)
    if twice:
        yield Problem(f"{len(twice)} x an image on two lines ({few(twice)})", str(table), "keep one line of each image")


def _sizes(out: Merged) -> list[str]:
    people, most = len({e.patient for e in out.entries}), len(FIELDS)
    how = [f"{n} with {k}{' or more' if k > most else ''}" for k, n in sorted(out.sizes.items())]
    notes = [f"{len(out.entries)} studies of {people} patients, by their images: {', '.join(how)}"]
    beyond = sum(why == BEYOND for _, why in out.left_out)
    if beyond:
        notes.append(
            f"  {out.sizes[most + 1]} studies have more than {most} images: of those {beyond} are left out, the last by their views"
        )
    return notes

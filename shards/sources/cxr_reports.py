"""Chest radiographs with reports: a table of image path and text, MIMIC-CXR-JPG's and CheXpert's folders, or clinical notes beside images.

The table (`--csv`) has one line an image: a column with the image's path (relative to `--images`, or to the table), or MIMIC-CXR's
dicom_id, subject_id and study_id; and either a column with the text, or one with paths of text files (`--text-files`), or neither, in
which case the text is found where MIMIC-CXR keeps it: files/pXX/pSUBJECT/sSTUDY/DICOM.jpg goes with files/pXX/pSUBJECT/sSTUDY.txt
under `--reports`. A list of paths without a header (IMAGE_FILENAMES) will do. A split table (mimic-cxr-2.0.0-split.csv.gz) and a label
table (mimic-cxr-2.0.0-chexpert.csv.gz) are joined by image or by study. The layouts are in _cxr_layouts.py, findings in _cxr_findings.py.

Rules, each counted in the notes: an image without a file or a line without a patient is left out; a report that is empty is left
out as a field, and the image stays (`--empty drop` leaves both out); a report over `--longest` characters is left out as a field too
(it is no report of one study). Text is stored as it is: nothing in it is evaluated, and no message repeats it. With `--per study` a sample
is a study with up to three images and one report (_cxr_studies.py).
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.errors import DataError, Problem, bad
from shards.pack.entry_checks import entry_problems
from shards.pack.keys import short_keys
from shards.pack.labels import label_rule, settle
from shards.pack.manifest import Entry, Manifest
from shards.pack.reference import Reference
from shards.sources import Found, register
from shards.sources._cxr_findings import answers, counted, finding_columns, joined, joined_column
from shards.sources._cxr_layouts import (
    MIMIC_COLUMNS,
    Film,
    Places,
    columns_named,
    films_of,
    joined_lines,
    located,
    read_list,
)
from shards.sources._cxr_studies import Line, Studies, check_flags, merged, studies_of, study_options
from shards.sources._people import reconciled
from shards.tables.cells import plain
from shards.tables.identity import sample, study
from shards.tables.keyed import Row, Rows, keyed, no_column, read_rows
from shards.tables.table_file import read_text
from shards.tables.unknown import words_of

IMAGE_COLUMNS = ("image", "image_path", "path", "filename", "image_index")
TEXT_COLUMNS = ("text", "report", "report_content", "findings", "clinical_notes")
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject_id")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val", "test": "test"}
LONGEST = 20_000
WITH = "with a report"
UNITS = {"image": "images", "study": "studies"}
NO_STUDY = "no study"
# What helps where all images or reports are left out, by a part of the reason.
FIXES = {
    NO_STUDY: "name the column of studies with --study-column, or pack a sample an image: --per image",
    "no patient": "name the column of patients with --patient-column",
    "no image file": "give the folder that the paths begin in as --images, or name their column with --image-column",
    "DICOM": "save the images as JPEG or PNG and name those in the table, or describe the films in a layout of your own (docs/layouts.md)",
    "an empty report": "name the column of texts with --text-column",
    "without a report file": "give the folder of the report files as --reports; if the column holds texts, leave --text-files out",
    "outside the folder": "give the folder that holds all report files as --reports",
    "not UTF-8": "save the report files as UTF-8",
    "characters": "raise the limit with --longest",
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--csv", type=Path, required=True, help="table with one line an image, or MIMIC-CXR-JPG's own")
    parser.add_argument("--images", type=Path, help="folder that image paths are relative to (default: the table's)")
    parser.add_argument("--reports", type=Path, help="folder of report files (default: that of the images)")
    parser.add_argument(
        "--no-reports", action="store_true", help="images and labels alone, although reports could be had"
    )
    parser.add_argument("--image-column", help=f"default: the first of {', '.join(IMAGE_COLUMNS)}")
    parser.add_argument("--text-column", help=f"text (default: the first of {', '.join(TEXT_COLUMNS)})")
    parser.add_argument(
        "--patient-column",
        help="default: the first of patient, patient_id, subject_id, or the path of MIMIC-CXR or CheXpert",
    )
    parser.add_argument("--text-files", action="store_true", help="the text column holds paths of .txt files")
    parser.add_argument("--split-column", help="train, validate or val, test (default: split by patient)")
    parser.add_argument(
        "--label-columns",
        help="columns to keep as labels, comma-separated (default: findings as CheXpert or ChestX-ray14 write them)",
    )
    parser.add_argument("--splits", type=Path, help="MIMIC's split table (dicom_id, study_id, subject_id, split)")
    parser.add_argument("--labels", type=Path, help="MIMIC's label table (subject_id, study_id, findings as 1, 0, -1)")
    parser.add_argument("--empty", choices=("keep", "drop"), default="keep", help="images whose report is empty")
    study_options(parser)
    parser.add_argument("--longest", type=int, default=LONGEST, help=f"characters of a report (default {LONGEST})")


class _Columns:
    """Which column means what; what was asked for and is not there is an error, the rest is looked up by usual names.

    Spelling does not count: `Path`, `Image Index` and `Patient ID` are path, image_index and patient_id.
    """

    def __init__(self, args: argparse.Namespace, header: Sequence[str]):
        self.header, self.problems = header, list[Problem]()
        self.chosen: list[str] = []  # what was found by usual names, and what else would have served
        self.path = args.csv
        self.image = self._named(args.image_column, IMAGE_COLUMNS, "--image-column")
        self.text = None if args.no_reports else self._named(args.text_column, TEXT_COLUMNS, "--text-column")
        self.patient = self._named(args.patient_column, PATIENT_COLUMNS, "--patient-column")
        self.split = self._named(args.split_column, (), "--split-column")
        self.labels = [c for c in (args.label_columns or "").split(",") if c]
        for name in self.labels:
            self._named(name, (), "--label-columns")
        published = args.label_columns is None and args.labels is None
        self.findings = finding_columns(header) if published else []
        self.joined = joined_column(header) if published else None
        if self.image is None and not self.problems and not set(MIMIC_COLUMNS) <= set(header):
            fix = f"name it with --image-column (or bring {', '.join(MIMIC_COLUMNS)}); columns: {', '.join(header)}"
            self.problems.append(Problem("no column with the image's path", str(self.path), fix))
        if self.problems:
            raise DataError(self.problems)

    def _named(self, given: str | None, usual: Sequence[str], flag: str) -> str | None:
        if given is None:
            return self._usual(usual, flag)
        if given not in self.header:
            self.problems.append(no_column([given], flag, self.path, self.header))
        return given

    def _usual(self, usual: Sequence[str], flag: str) -> str | None:
        found = list(columns_named(self.header, usual))
        alike = [c for c in found if plain(c) == plain(found[0])]
        if len(alike) > 1:
            what = f"columns {', '.join(map(repr, alike))} could both be meant"
            self.problems.append(Problem(what, str(self.path), f"say which: {flag}"))
        more = f", not {', '.join(found[1:])} ({flag} takes another)" if found[1:] else ""
        self.chosen += [f"{flag[2:].removesuffix('-column')} from '{found[0]}'{more}"] if found else []
        return found[0] if found else None


@register("cxr_reports", options)
def find(args: argparse.Namespace) -> Found:
    """Chest radiographs and reports: a table of both, MIMIC-CXR-JPG's or CheXpert's own tables and folders."""
    check_flags(args)
    rows = read_list(args.csv)
    columns = _Columns(args, rows.columns)
    images, unknown = args.images or args.csv.parent, words_of(args)
    films = films_of(rows, columns.image, images)
    given = [
        "" if columns.patient is None or unknown(f.row[columns.patient]) else f.row[columns.patient] for f in films
    ]
    people = reconciled(given, [f.subject for f in films], args.patient_column, [f.row.where for f in films], args.csv)
    studies = studies_of(args, rows, columns.image, films, people) if args.per == "study" else None
    asked = _asked(args, columns, films)
    splits, splits_said = _mimic_splits(args.splits, films)
    labels, labels_said, problems = _labels(args, columns, films)
    used = _Used(args, columns, images, asked, splits)
    for at, (film, key, who, said) in enumerate(zip(films, _keys(films), people, labels, strict=True)):
        used.add(Line(film, Entry(film.row.where, key, who, labels=said)), at, studies)
    entries, unit, head, pack = [line.entry for line, _ in used.lines], "image", list[str](), dict[str, Any]()
    counts, unmatched = used.reports, used.unmatched
    if studies is not None and entries:
        one = merged(args, used.lines, studies, short_keys, WITH)
        entries, counts, unit, head = one.entries, one.reports, "study", one.notes
        unmatched, problems = [*unmatched, *one.left_out], [*problems, *one.problems]
        pack["meanings"] = one.meanings
    _check_used(args, entries, len(films), unmatched, counts if asked else None, unit)
    names = [*columns.labels, *sorted({n for e in entries for n in e.labels} - set(columns.labels))]
    settled = settle(entries, names, label_rule(args), asked=columns.labels, of_numbers=_many)
    notes = [f"columns: {'; '.join(columns.chosen)}"] if columns.chosen else []
    notes += [f"{len(used.lines)} images of {len({line.entry.patient for line, _ in used.lines})} patients", *head]
    notes += [*splits_said, *labels_said]
    notes += [f"  {n} {UNITS[unit]} {what}" for what, n in counts.most_common()]
    notes += [f"  left out: {n} x {why}" for why, n in Counter(w for _, w in unmatched).most_common()]
    if asked:
        notes.append("next: python -m shards tokenizer DIR    (a WordPiece vocabulary of the training reports)")
    problems += settled.problems + entry_problems(entries)
    return Found(Manifest(entries, settled.kinds, problems, settled.notes), notes, unmatched, pack)


@dataclass
class _Used:
    """Films that become samples, filled one by one.

    asked: whether they are to have reports. splits: of the published list, by image.
    lines: with their numbers among all films. reports: how their reports went. unmatched: the other films, and why.
    """

    args: argparse.Namespace
    columns: _Columns
    images: Path
    asked: bool
    splits: Mapping[str, str]
    lines: list[tuple[Line, int]] = field(default_factory=list)
    reports: Counter[str] = field(default_factory=Counter)
    unmatched: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = Places(self.images)

    def add(self, line: Line, at: int, studies: Studies | None) -> None:
        film = line.film
        why = self._filled(line, at, studies)
        if self.columns.split is not None:
            line.entry.split = _split(film.row[self.columns.split])
        elif self.args.splits:
            line.entry.split = self.splits.get(film.image)
        if why:
            self.unmatched.append((film.path, why))
        else:
            self.lines.append((line, at))

    def _filled(self, line: Line, at: int, studies: Studies | None) -> str | None:
        """Adds image and report; why the film is left out, None where it is not."""
        file = self._places(line.film.path)
        if why := _unfit(line.entry, file) or (NO_STUDY if studies and not studies.names[at] else None):
            return why
        line.entry.fields["image"] = Reference(line.film.path, file)
        if not self.asked:
            return None
        line.report = _add_report(line.entry, line.film, self.columns.text, self.args)
        self.reports[line.report] += 1
        # Of a study the report of another film may serve: what is dropped is known when they are put together.
        dropped = self.args.empty == "drop" and line.report != WITH and studies is None
        return line.report if dropped else None


def _check_used(
    args: argparse.Namespace,
    entries: Sequence[Entry],
    films: int,
    unmatched: Sequence[tuple[str, str]],
    reports: Counter[str] | None,
    unit: str,
) -> None:
    """Refuses a table of which nothing is left; `reports` says how they went, where samples are to have them."""
    if not entries:
        reasons, fix = _reasons(Counter(w for _, w in unmatched))
        raise bad(f"none of {films} lines can be used ({reasons})", args.csv, fix)
    if reports is not None and not reports[WITH]:
        reasons, fix = _reasons(reports)
        fix = f"{fix}; or pack images and labels alone: --no-reports"
        raise bad(f"no {unit} has a report ({reasons})", args.csv, fix)


def _asked(args: argparse.Namespace, columns: _Columns, films: Sequence[Film]) -> bool:
    """Whether the films are to have reports: they are, unless it is said or the table has findings and no place for reports."""
    if args.no_reports:
        return False
    mimic = any(f.report for f in films)
    labelled = bool(columns.findings or columns.joined or columns.labels or args.labels)
    return columns.text is not None or mimic or not labelled


def _keys(films: Sequence[Film]) -> list[str]:
    """A key of each image: MIMIC's image id, or the file's name, with its folders where names repeat."""
    paths = [f.path for f in films]
    ids = [re.sub(r"\.[A-Za-z0-9]+$", "", f.path.rsplit("/", 1)[-1] if f.image else f.path) for f in films]
    names = [i.rsplit("/", 1)[-1] for i in ids]
    return short_keys(names if len(set(names)) == len(set(ids)) else ids, paths)


def _reasons(counts: Counter[str]) -> tuple[str, str]:
    """Why images or reports are left out, the most frequent first, and what helps against each."""
    often = [why for why, _ in counts.most_common(3)]
    said = "; ".join(f"{counts[why]} x {why}" for why in often)
    return said, "; ".join(dict.fromkeys(next(fix for part, fix in FIXES.items() if part in why) for why in often))


def _unfit(entry: Entry, image: Path) -> str | None:
    if not entry.patient:
        return "no patient"
    if image.is_file():
        return "a DICOM file, which is not read" if image.suffix.lower() == ".dcm" else None
    return "no image file"


def _add_report(entry: Entry, film: Film, column: str | None, args: argparse.Namespace) -> str:
    """Adds the report as a text; says how it went, in words for the notes."""
    text, unknown = film.row[column] if column else "", words_of(args)
    if column and unknown(text):
        return "with an empty report"
    base = args.reports or args.images or args.csv.parent
    name = text if args.text_files else film.report if column is None else None
    if name:
        file = base / name if args.text_files else located(base, name)
        if not file.resolve().is_relative_to(base.resolve()):
            return "with a report file outside the folder"
        if not file.is_file():
            return "without a report file"
        try:
            text = read_text(file)
        except DataError:
            return "with a report that is not UTF-8"
    if unknown(text) or not re.search(r"\w", text):
        return "with an empty report"
    if len(text) > args.longest:
        return f"with a report over {args.longest} characters"
    entry.texts["report"] = text
    return WITH


def _many(values: Sequence[float]) -> str:
    """Numbers of over ten different values are numbers; of fewer, codes of classes."""
    return "number" if len(set(values)) > 10 else "class"


# ---------------------------------------------------------------------------------------------------- splits and labels


def _split(word: str) -> str:
    return SPLITS.get(word.strip().lower(), word)


def _mimic_splits(path: Path | None, films: Sequence[Film]) -> tuple[dict[str, str], list[str]]:
    """The split of each image of MIMIC-CXR."""
    if path is None:
        return {}, []
    fix = "give MIMIC's table of splits as --splits mimic-cxr-2.0.0-split.csv.gz"
    rows = read_rows(path, ("dicom_id", "split"), fix)
    of_image = keyed(rows, lambda row: sample(row["dicom_id"]), "image")
    said = joined_lines("--splits", path, [f.image for f in films], of_image, sample)
    return {image: _split(row["split"]) for image, row in of_image.items()}, said


def _labels(
    args: argparse.Namespace, columns: _Columns, films: Sequence[Film]
) -> tuple[list[dict[str, str | float]], list[str], list[Problem]]:
    """The labels of each film, lines on them, and cells that are no answers."""
    unknown, problems, said = words_of(args), list[Problem](), list[str]()
    labels: list[dict[str, str | float]] = [{c: f.row[c] for c in columns.labels} for f in films]
    found: list[dict[str, str]] = []
    names: list[str] = []
    if args.labels is not None:
        of_study, findings, said = _mimic_labels(args.labels, films)
        memo = {key: answers(row, findings, unknown, problems) for key, row in of_study.items()}
        found, names = [memo.get(f.study, {}) for f in films], [plain(n) for n in findings]
    elif columns.joined is not None:
        found = [joined(f.row, columns.joined, unknown, problems) for f in films]
        names = sorted({n for one in found for n in one})
    elif columns.findings:
        found = [answers(f.row, columns.findings, unknown, problems) for f in films]
        names = [plain(c) for c in columns.findings]
    for mine, more in zip(labels, found, strict=False):
        mine |= more
    return labels, said + ([f"  {counted(found, names)}"] if names else []), problems


def _mimic_labels(path: Path, films: Sequence[Film]) -> tuple[dict[str, Row], list[str], list[str]]:
    """The row of each study, the columns of findings, and what the join came to."""
    fix = (
        "give MIMIC's table of findings as --labels mimic-cxr-2.0.0-chexpert.csv.gz; "
        "a table of your own is joined by a layout of your own (`join` in docs/layouts.md)"
    )
    rows = read_rows(path, ("study_id",), fix)
    findings = _findings(rows)
    of_study = keyed(rows, lambda row: study(row["study_id"]), "study")
    return of_study, findings, joined_lines("--labels", path, [f.study for f in films], of_study, study)


def _findings(rows: Rows) -> list[str]:
    """All columns but those of ids."""
    return [c for c in rows.columns if c not in MIMIC_COLUMNS]

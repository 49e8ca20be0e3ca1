"""Chest radiographs with reports: a table of image path and text, MIMIC-CXR-JPG's folders, or clinical notes beside images.

The table (`--csv`) has one line an image: a column with the image's path (relative to `--images`, or to the table), and
either a column with the text, or one with paths of text files (`--text-files`), or neither, in which case the text is
found where MIMIC-CXR keeps it: files/pXX/pSUBJECT/sSTUDY/DICOM.jpg goes with files/pXX/pSUBJECT/sSTUDY.txt under
`--reports`. A split table (mimic-cxr-2.0.0-split.csv) and a label table (mimic-cxr-2.0.0-chexpert.csv) are joined by
image or by study.

Rules, each counted in the notes: an image without a file or a line without a patient is left out; a report that is empty is left
out as a field, and the image stays (`--empty drop` leaves both out); a report over `--longest` characters is left out as a field too
(it is no report of one study). Text is stored as it is: nothing in it is evaluated, and no message repeats it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from shards.errors import DataError, Problem, bad
from shards.keyed import Row, keyed, read_rows
from shards.labels import label_rule, settle
from shards.manifest import Entry, Manifest, entry_problems
from shards.reference import Reference
from shards.sources import Found, register
from shards.sources._people import reconciled
from shards.table_file import read_text
from shards.unknown import words_of

MIMIC = re.compile(r"(?:^|/)(p\d{2}/p(\d+)/s(\d+))/([0-9a-zA-Z-]+)\.jpg$")
IMAGE_COLUMNS = ("image", "image_path", "path", "filename")
TEXT_COLUMNS = ("text", "report", "report_content", "findings", "clinical_notes")
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject_id")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val", "test": "test"}
LONGEST = 20_000
KEY_LENGTH = 64
WITH = "with a report"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--csv", type=Path, required=True, help="table with one line an image")
    parser.add_argument("--images", type=Path, help="folder that image paths are relative to (default: the table's)")
    parser.add_argument("--reports", type=Path, help="folder of report files (default: that of the images)")
    parser.add_argument("--image-column", help=f"default: the first of {', '.join(IMAGE_COLUMNS)}")
    parser.add_argument("--text-column", help=f"text (default: the first of {', '.join(TEXT_COLUMNS)})")
    parser.add_argument(
        "--patient-column", help="default: the first of patient, patient_id, subject_id, or MIMIC's path"
    )
    parser.add_argument("--text-files", action="store_true", help="the text column holds paths of .txt files")
    parser.add_argument("--split-column", help="train, validate or val, test (default: split by patient)")
    parser.add_argument("--label-columns", help="columns to keep as labels, comma-separated (default: none)")
    parser.add_argument("--splits", type=Path, help="MIMIC's split table (dicom_id, study_id, subject_id, split)")
    parser.add_argument("--labels", type=Path, help="MIMIC's label table (subject_id, study_id, findings as 1, 0, -1)")
    parser.add_argument("--empty", choices=("keep", "drop"), default="keep", help="images whose report is empty")
    parser.add_argument("--longest", type=int, default=LONGEST, help=f"characters of a report (default {LONGEST})")


class _Columns:
    """Which column means what; what was asked for and is not there is an error, the rest is looked up by usual names."""

    def __init__(self, args: argparse.Namespace, header: Sequence[str]):
        self.header, self.problems = header, list[Problem]()
        self.chosen: list[str] = []  # what was found by usual names, and what else would have served
        self.path = args.csv
        self.image = self._named(args.image_column, IMAGE_COLUMNS, "--image-column")
        self.text = self._named(args.text_column, TEXT_COLUMNS, "--text-column")
        self.patient = self._named(args.patient_column, PATIENT_COLUMNS, "--patient-column")
        self.split = self._named(args.split_column, (), "--split-column")
        self.labels = [c for c in (args.label_columns or "").split(",") if c]
        for name in self.labels:
            self._named(name, (), "--label-columns")
        if self.image is None and not self.problems:
            fix = f"name it with --image-column; columns: {', '.join(header)}"
            self.problems.append(Problem("no column with the image's path", str(self.path), fix))
        if self.problems:
            raise DataError(self.problems)

    def _named(self, given: str | None, usual: Iterable[str], flag: str) -> str | None:
        if given is None:
            found = [c for c in usual if c in self.header]
            more = f", not {', '.join(found[1:])} ({flag} takes another)" if found[1:] else ""
            self.chosen += [f"{flag[2:].removesuffix('-column')} from '{found[0]}'{more}"] if found else []
            return found[0] if found else None
        if given not in self.header:
            fix = f"columns: {', '.join(self.header)}"
            self.problems.append(Problem(f"no column '{given}' ({flag})", str(self.path), fix))
        return given


@register("cxr_reports", options)
def find(args: argparse.Namespace) -> Found:
    """Chest radiographs and reports: a table of both, or MIMIC-CXR-JPG's folders."""
    rows = read_rows(args.csv)
    columns = _Columns(args, rows.columns)
    images = args.images or args.csv.parent
    splits, findings = _mimic_splits(args.splits), _mimic_labels(args.labels)
    unknown, entries = words_of(args), list[Entry]()
    unmatched: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    paths = [row[columns.image or ""] for row in rows]
    given = ["" if columns.patient is None or unknown(row[columns.patient]) else row[columns.patient] for row in rows]
    people = reconciled(given, [_subject(p) for p in paths], args.patient_column, [row.where for row in rows], args.csv)
    for row, path, key, who in zip(rows, paths, _keys(paths), people, strict=True):
        entry = Entry(row.where, key, who)
        why = _unfit(entry, images / path)
        if why is None:
            entry.fields["image"] = Reference(path, images / path)
            found = _add_report(entry, row, columns.text, path, args)
            counts[found] += 1
            why = found if args.empty == "drop" and found != WITH else None
        if why:
            unmatched.append((path, why))
            continue
        _add_split_and_labels(entry, row, path, columns, splits, findings)
        entries.append(entry)
    if not entries:
        reasons = "; ".join(f"{n} x {why}" for why, n in Counter(w for _, w in unmatched).most_common(3))
        raise bad(f"none of {len(rows)} lines can be used ({reasons})", args.csv, "check --images and the columns")
    if not counts[WITH]:
        what = "; ".join(f"{n} images {why}" for why, n in counts.most_common(3))
        raise bad(f"no image has a report ({what})", args.csv, "check --text-column, --text-files and --reports")
    names = [*columns.labels, *sorted({n for e in entries for n in e.labels} - set(columns.labels))]
    settled = settle(entries, names, label_rule(args), asked=columns.labels, of_numbers=_many)
    notes = [f"columns: {'; '.join(columns.chosen)}"] if columns.chosen else []
    notes.append(f"{len(entries)} images of {len({e.patient for e in entries})} patients")
    notes += [f"  {n} images {what}" for what, n in counts.most_common()]
    notes += [f"  left out: {n} x {why}" for why, n in Counter(w for _, w in unmatched).most_common()]
    notes.append("next: python -m shards tokenizer DIR    (a WordPiece vocabulary of the training reports)")
    problems = settled.problems + entry_problems(entries)
    return Found(Manifest(entries, settled.kinds, problems, settled.notes), notes, unmatched)


def _keys(paths: Sequence[str]) -> list[str]:
    """A key of each image: MIMIC's image id, or the file's name, with its folders where names repeat.

    Long ones are cut and end in a hash of the path, because a tar's member names are short.
    """
    ids = [found[4] if (found := MIMIC.search(p)) else re.sub(r"\.[A-Za-z0-9]+$", "", p) for p in paths]
    names = [i.rsplit("/", 1)[-1] for i in ids]
    plain = names if len(set(names)) == len(set(ids)) else ids
    keys = [re.sub(r"[^A-Za-z0-9_-]", "_", k).strip("_-") or "image" for k in plain]
    hashes = (hashlib.sha256(p.encode()).hexdigest()[:8] for p in paths)
    return [k if len(k) <= KEY_LENGTH else f"{k[: KEY_LENGTH - 9]}-{h}" for k, h in zip(keys, hashes, strict=True)]


def _subject(path: str) -> str:
    """The patient whose folder MIMIC-CXR keeps the image in; '' elsewhere."""
    found = MIMIC.search(path)
    return f"p{found[2]}" if found else ""


def _unfit(entry: Entry, image: Path) -> str | None:
    if not entry.patient:
        return "no patient"
    return None if image.is_file() else "no image file"


def _add_report(entry: Entry, row: Row, column: str | None, path: str, args: argparse.Namespace) -> str:
    """Adds the report as a text; says how it went, in words for the notes."""
    text, unknown = row[column] if column else "", words_of(args)
    if column and unknown(text):
        return "with an empty report"
    base = args.reports or args.images or args.csv.parent
    name = text if args.text_files else _mimic_report(path) if column is None else None
    if name:
        file = base / name
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


def _mimic_report(path: str) -> str | None:
    """Where MIMIC-CXR keeps the report of an image: beside the folder of its study."""
    found = MIMIC.search(path)
    return f"{path[: found.start(1)]}{found[1]}.txt".lstrip("/") if found else None


def _add_split_and_labels(
    entry: Entry,
    row: Row,
    path: str,
    columns: _Columns,
    splits: dict[str, str],
    findings: dict[str, dict[str, str]],
) -> None:
    found = MIMIC.search(path)
    if columns.split is not None:
        entry.split = SPLITS.get(row[columns.split].strip().lower(), row[columns.split])
    elif splits and found:
        entry.split = splits.get(found[4])
    entry.labels = {c: row[c] for c in columns.labels}
    if found and found[3] in findings:
        entry.labels |= findings[found[3]]


def _many(values: Sequence[float]) -> str:
    """Numbers of over ten different values are numbers; of fewer, codes of classes."""
    return "number" if len(set(values)) > 10 else "class"


def _mimic_splits(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    of_image = keyed(read_rows(path, ("dicom_id", "split"), "mimic-cxr-2.0.0-split.csv"), "dicom_id", "image")
    return {image: SPLITS.get(row["split"].lower(), row["split"]) for image, row in of_image.items()}


def _mimic_labels(path: Path | None) -> dict[str, dict[str, str]]:
    """Findings of each study; empty cells (not mentioned) are unknown, -1 is kept as the class 'uncertain'."""
    if path is None:
        return {}
    of_study = keyed(read_rows(path, ("study_id",), "mimic-cxr-2.0.0-chexpert.csv"), "study_id", "study")
    words = {"1.0": "present", "1": "present", "0.0": "absent", "0": "absent", "-1.0": "uncertain", "-1": "uncertain"}
    return {
        study: {
            re.sub(r"\W+", "_", n).lower(): words.get(v, v)
            for n, v in row.items()
            if n not in ("subject_id", "study_id")
        }
        for study, row in of_study.items()
    }

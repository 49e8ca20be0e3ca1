"""Where the published sets of chest films keep what: a film's path, patient, study and report, from the tables as they are published.

MIMIC-CXR-JPG   files/p10/p10000032/s50414267/DICOM.jpg; metadata, split, chexpert and negbio tables name dicom, subject and study and no
                path; IMAGE_FILENAMES is a list of paths without a header; MIMIC-CXR's cxr-record-list has paths of DICOM files, its
                cxr-study-list has paths of reports, one a study (https://physionet.org/content/mimic-cxr-jpg/2.1.0/)
CheXpert        CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, column Path (Irvin et al., AAAI 2019)
ChestX-ray14    Image Index 00000001_000.png in images_001/images ... images_012/images (Wang et al., CVPR 2017)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DataError, Problem, bad
from shards.format.archive import no_twins
from shards.tables.cells import plain
from shards.tables.identity import person, study
from shards.tables.joins import Side, partners
from shards.tables.keyed import Row, Rows, read_rows
from shards.tables.table_file import open_table

MIMIC = re.compile(r"(?:^|/)(p\d{2}/p(\d+)/s(\d+))/([0-9a-zA-Z-]+)\.(?:jpe?g|png|dcm)$", re.IGNORECASE)
MIMIC_REPORT = re.compile(r"(?:^|/)(p\d{2}/p(\d+)/s(\d+))\.txt$", re.IGNORECASE)
CHEXPERT = re.compile(r"(?:^|/)(patient\d+)/(study\d+)/[^/]+$", re.IGNORECASE)
MIMIC_COLUMNS = ("dicom_id", "subject_id", "study_id")
# The folder that a published path begins with; people keep its content under names of their own.
ROOT = re.compile(r"^(?:files|CheXpert-v1\.0[^/]*)/", re.IGNORECASE)
PICTURE = re.compile(r"\.(?:jpe?g|png|dcm)$", re.IGNORECASE)
NIH_FOLDERS = "images_*/images/*.png"
SHOWN = 3


@dataclass(frozen=True)
class Film:
    """A line of the table, or a film of a study that it lists; `path` is relative to the folder of the images."""

    row: Row
    path: str

    @property
    def subject(self) -> str:
        """The patient whose folder holds the film; '' where the layout has none."""
        if found := MIMIC.search(self.path):
            return f"p{found[2]}"
        found = CHEXPERT.search(self.path)
        return found[1] if found else ""

    @property
    def study(self) -> str:
        """MIMIC-CXR's study, as tables name it; '' elsewhere."""
        found = MIMIC.search(self.path)
        return study(found[3]) if found else ""

    @property
    def study_folder(self) -> str:
        """The folder of the study, as MIMIC-CXR (s50414267) and CheXpert (study1, of each patient) name it; '' elsewhere."""
        if found := MIMIC.search(self.path):
            return f"s{found[3]}"
        found = CHEXPERT.search(self.path)
        return found[2] if found else ""

    @property
    def image(self) -> str:
        """MIMIC-CXR's id of the film; '' elsewhere."""
        found = MIMIC.search(self.path)
        return found[4].lower() if found else ""

    @property
    def report(self) -> str | None:
        """Where MIMIC-CXR keeps the report: beside the folder of its study."""
        found = MIMIC.search(self.path)
        return f"{self.path[: found.start(1)]}{found[1]}.txt".lstrip("/") if found else None


def read_list(path: Path) -> Rows:
    """The table of films. A list of paths without a header (IMAGE_FILENAMES) has one column, `path`.

    Raises:
        DataError: not a table.
    """
    header = open_table(path).header
    bare = len(header) == 1 and (PICTURE.search(header[0]) or MIMIC_REPORT.search(header[0]))
    return read_rows(path, header=("path",) if bare else None)


def films_of(rows: Rows, column: str | None, images: Path) -> list[Film]:
    """The films that a table lists, in its order.

    Args:
        column: that of the path; None where the table has MIMIC-CXR's ids instead.

    Raises:
        DataError: ids that make no path, all at once; a list of reports none of whose studies has a film.
    """
    if column is None:
        return _by_ids(rows)
    if lists_reports(rows, column):
        return _of_studies(rows, column, images)
    return [Film(row, _as_jpeg(row[column])) for row in rows]


def lists_reports(rows: Rows, column: str) -> bool:
    """Whether the paths of a table are those of MIMIC-CXR's reports, one a study, and no line is of a film."""
    return bool(rows.rows) and all(MIMIC_REPORT.search(row[column]) for row in rows)


def _by_ids(rows: Rows) -> list[Film]:
    """files/p10/p10000032/s50414267/DICOM.jpg from the three ids."""
    films, problems = [], []
    for row in rows:
        dicom, subject, number = (row[c] for c in MIMIC_COLUMNS)
        who, which = person(subject), study(number)
        if re.fullmatch(r"\d{3,}", who) and which.isdigit() and re.fullmatch(r"[0-9a-zA-Z-]+", dicom):
            films.append(Film(row, f"files/p{who[:2]}/p{who}/s{which}/{dicom}.jpg"))
        else:
            what = f"dicom_id '{dicom}', subject_id '{subject}', study_id '{number}' make no path"
            problems.append(Problem(what, row.where, "give the table as it was published"))
    if problems:
        raise DataError(problems)
    return films


def _as_jpeg(path: str) -> str:
    """MIMIC-CXR's own list has the paths of its DICOM files; those of MIMIC-CXR-JPG are the same but for the ending."""
    return re.sub(r"\.dcm$", ".jpg", path) if MIMIC.search(path) else path


def _of_studies(rows: Rows, column: str, images: Path) -> list[Film]:
    """All films of the studies whose reports a table lists."""
    films = []
    for row in rows:
        folder = row[column].removesuffix(".txt")
        at = located(images, folder)
        if at.is_dir():
            films += [
                Film(row, f"{folder}/{p.name}") for p in no_twins(at.iterdir()) if p.suffix.lower() in (".jpg", ".jpeg")
            ]
    if not films:
        what = f"lists {len(rows)} reports, and no study of them has a folder of films"
        raise bad(what, rows.path, "give the folder of MIMIC-CXR-JPG's films as --images")
    return films


def located(base: Path, path: str) -> Path:
    """A file of a published layout under a folder, whether that is the folder above the published root or the root itself."""
    below = ROOT.sub("", path)
    for candidate in dict.fromkeys((base / path, base / below, base / "files" / below)):
        if candidate.exists():
            return candidate
    return base / path


class Places:
    """Where the films lie below a folder.

    Raises:
        DataError: ChestX-ray14's folders hold a name twice.
    """

    def __init__(self, images: Path):
        self.images = images
        self._spread: Mapping[str, Path] | None = None

    def __call__(self, path: str) -> Path:
        found = located(self.images, path)
        if found.is_file() or "/" in path:
            return found
        if self._spread is None:
            self._spread = _spread(self.images)
        return self._spread.get(path, found)


def _spread(images: Path) -> dict[str, Path]:
    """ChestX-ray14's films, which lie in twelve folders, by their names."""
    found: dict[str, Path] = {}
    twice = []
    for path in no_twins(images.glob(NIH_FOLDERS)):
        if found.setdefault(path.name, path) != path:
            twice.append(f"{path.name} in {found[path.name].parent.parent.name} and {path.parent.parent.name}")
    if twice:
        what = f"{len(twice)} films lie in two folders: {'; '.join(twice[:SHOWN])}"
        raise bad(what, images, "remove one of each")
    return found


def columns_named(header: Sequence[str], usual: Sequence[str]) -> Iterator[str]:
    """Columns with one of the usual names, in the order of those."""
    for name in usual:
        exact = [c for c in header if c == name]
        yield from exact or [c for c in header if plain(c) == name]


def joined_lines(
    flag: str, path: Path, ids: Sequence[str], table: Mapping[str, Row], form: Callable[[str], str]
) -> list[str]:
    """What a join came to; refused where nobody joined. A table of far more studies than there are films is as it should be."""
    mine = {i for i in ids if i}
    both = len(mine & set(table))
    if mine and 2 * both >= len(mine):
        return [f"{flag}: {both} of {len(mine)} joined"]
    fix = "give the table of these films: MIMIC-CXR's ids are looked for in pXX/pSUBJECT/sSTUDY/DICOM.jpg"
    return partners(f"{flag} {path}", Side.of("the films", mine), Side.of(path.name, list(table)), fix, form)[1]

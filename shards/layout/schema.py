"""What a layout may say, typed: unknown keys are refused with the nearest known one.

A template is text with columns in braces: `train_images/{id_code}.png`. Columns are those of the table that lists the samples, those of
tables joined to it, and constants of a table (`set`).
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from shards.errors import DataError, Problem, bad
from shards.format.info import FIELD, SPLITS
from shards.format.terms import Commercial
from shards.yaml_text import MOST_BYTES, parse

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "layout"
COLUMN = re.compile(r"\{([^{}]+)\}")


def _words(value: object) -> object:
    """`0: absent` is meant as the word of a cell: numbers become the text that a table holds."""
    if isinstance(value, dict):
        return {_word(k): _word(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_word(v) for v in value]
    return _word(value)


def _word(value: object) -> object:
    return f"{value:.15g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


Words = Annotated[dict[str, str], BeforeValidator(_words)]
Names = Annotated[list[str], BeforeValidator(_words), BeforeValidator(_several)]


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        raise ValueError(f"is no regular expression ({e})") from e
    return value


Pattern = Annotated[str, BeforeValidator(_pattern)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: object) -> object:
        known = list(cls.model_fields)
        for key in values if isinstance(values, dict) else ():
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
                raise ValueError(f"unknown key '{key}'; {hint}")
        return values


class Table(_Part):
    """A table of the set. The first of `file` that is there is read; names may have `*`."""

    file: Names
    columns: Names = []
    """Those that it must have."""
    header: Names = []
    """Names of the columns of a file without a header."""
    set: Words = {}
    """Constant columns of each of its rows."""
    cut: dict[str, Pattern] = {}
    """{column: what is cut out of its cells}, such as the folder of a release before its paths."""
    join: dict[str, str] = {}
    """Of a joined table: {its column: the template in columns of the rows that it must equal}."""
    several: bool = False
    """Of a joined table: several of its rows may belong to one (boxes)."""
    optional: bool = False
    """Without the file its columns are blank."""


class Listed(_Part):
    """Files as rows: their path (`path`) and the named groups of a pattern that is searched in it are the columns."""

    files: Names
    pattern: Pattern
    set: Words = {}


class Cell(_Part):
    """A template, or what the groups of a pattern find in it, joined by `_`."""

    value: str
    pattern: Pattern | None = None


class Patient(Cell):
    note: str = ""
    """What is said at every run, such as that the set names no people."""


class FieldOf(_Part):
    """One field of a sample, from files, cells or several rows."""

    path: Names = []
    """Templates of where the file lies below the root, the first that is there counts; `*` stands for any name."""
    every: Names = []
    """Patterns of all files of this kind: those that no row uses are counted and listed."""
    missing: Literal["refuse", "absent"] = "refuse"
    """A row without its file is refused (or left out, `--partial`), or the sample has no such field."""
    reference: str | None = None
    """Template of a reference as in a manifest: FILE.h5#features (bags), TABLE.csv#ROW (omics)."""
    text: Names = []
    """Templates of the text itself; those that are filled are joined by a line."""
    runs: Runs | None = None
    boxes: Boxes | None = None
    meaning: Words = {}

    @model_validator(mode="after")
    def _one_way(self) -> FieldOf:
        ways = [n for n in ("path", "reference", "text", "runs", "boxes") if getattr(self, n)]
        if len(ways) != 1:
            raise ValueError(f"has {' and '.join(ways) or 'none'} of path, reference, text, runs, boxes: give one")
        return self


class Runs(_Part):
    """A mask drawn by run lengths, the union of a sample's rows.

    form: relative (Kaggle's SIIM-ACR: each start counts from the end of the run before) or absolute (from the first pixel, which is 1).
    """

    column: str
    form: Literal["relative", "absolute"]
    order: Literal["columns", "rows"]
    """Which way the pixels are counted."""
    empty: Names = []
    """Words for a mask without any object."""
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Boxes(_Part):
    """Boxes as rows of an array [boxes, 4]; blank cells mean none, and a sample without any has no such field."""

    columns: Annotated[list[str], Field(min_length=4, max_length=4)]
    form: Literal["x y width height", "x0 y0 x1 y1"]
    table: str | None = None
    """The joined table that has them; without it the rows themselves do."""


class Label(_Part):
    """Labels from one column, or alike from several. Words for "not known" become no label, before anything else."""

    column: str | None = None
    columns: Names = []
    name: str | None = None
    """Default: the column's name, `plain` in small letters and underscores."""
    plain: bool = False
    words: Words = {}
    """{cell: class}; numbers are compared as numbers. Other cells are refused unless `others` says what they become."""
    others: str | None = None
    """What any other cell becomes: a class, or `unknown`."""
    separator: Names = []
    """The cell is a list: the first of `words` that it holds decides; with `among`, each is a label of its own."""
    among: Names = []
    """With `separator`: findings of which each becomes a label present or absent."""
    none: str | None = None
    """With `among`: the word that says that there is none of them; a label too."""
    kind: Literal["class", "number"] = "class"

    @model_validator(mode="after")
    def _fits(self) -> Label:
        if bool(self.column) == bool(self.columns):
            raise ValueError("give column or columns, one of them")
        if self.among and not self.separator:
            raise ValueError("among needs separator")
        if self.name and (self.columns or self.among):
            raise ValueError("name is for a single label")
        return self


class View(_Part):
    """Columns of view positions, of which the first that is filled counts; becomes the label `view`, which `--views` selects by."""

    columns: Names
    words: Words = {}


class Exclude(_Part):
    """Rows that are left out: those whose cell is not one of `keep`, or is one of `drop`."""

    column: str
    keep: Names = []
    drop: Names = []
    why: str


class Splits(_Part):
    """Published splits: a column, or lists of images below the root. Without one of validation, a share of training's patients is drawn."""

    column: str | None = None
    words: Words = {}
    lists: dict[str, str] = {}
    validation: float = Field(default=0.0, ge=0, lt=1)
    note: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> Splits:
        if (self.column is None) == (not self.lists):
            raise ValueError("give column or lists, one of them")
        if odd := [s for s in (*self.lists, *self.words.values()) if s not in SPLITS]:
            raise ValueError(f"'{odd[0]}' is none of {', '.join(SPLITS)}")
        return self


class Header(_Part):
    """Of DICOM files: which header fields become labels. No other enters a data set."""

    labels: Words = {}
    """{keyword of the standard: label}, such as ViewPosition: view."""


class Layout(_Part):
    """One public set."""

    about: str
    licence: str
    commercial: Commercial = "unknown"
    """Whether its terms allow commercial use."""
    citation: str
    address: str = ""
    notes: list[str] = []
    """What to know before using it; said at each run."""
    tables: dict[str, Table] = {}
    rows: list[str | Listed] = Field(min_length=1)
    """Tables whose rows are samples, and lists of files."""
    several: bool = False
    """Several rows may be of one sample (a box or a run of a mask each); all other cells must agree."""
    sample: Cell
    patient: Patient
    fields: dict[str, FieldOf] = Field(min_length=1)
    labels: list[Label] = []
    view: View | None = None
    exclude: list[Exclude] = []
    splits: Splits | None = None
    header: Header = Header()

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: object) -> object:
        """`sample: "{ID}"` for `sample: {value: "{ID}"}`."""
        if not isinstance(values, dict):
            return values
        short = {k: {"value": v} for k in ("sample", "patient") if isinstance(v := values.get(k), str)}
        return values | short

    @model_validator(mode="after")
    def _hangs_together(self) -> Layout:
        for name in self.fields:
            if not FIELD.fullmatch(name):
                raise ValueError(f"field '{name}': a name has small letters, digits and underscores")
        listed = [r for r in self.rows if isinstance(r, str)]
        joined = [n for n, t in self.tables.items() if t.join]
        if odd := [n for n in listed if n not in self.tables or n in joined]:
            raise ValueError(f"rows: '{odd[0]}' is no table without a join")
        if odd := [n for n in self.tables if n not in (*listed, *joined)]:
            raise ValueError(f"tables.{odd[0]}: lists no samples (rows) and joins none (join)")
        tables = [f.boxes.table for f in self.fields.values() if f.boxes and f.boxes.table]
        if odd := [t for t in tables if t not in joined]:
            raise ValueError(f"boxes.table: '{odd[0]}' is no joined table")
        return self


FieldOf.model_rebuild()


def layout_names() -> list[str]:
    """The layouts that come with medpair."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a layout: itself, or a name in `FOLDER`."""
    return Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"


def about(name: str) -> str:
    """The line `about`, without reading the whole layout: every command line lists all sources."""
    path = path_of(name)
    found = (
        re.search(r'^about: *"?(.*?)"? *$', path.read_text(errors="replace"), re.MULTILINE) if path.is_file() else None
    )
    return found[1] if found else "a layout of one's own"


def load(name: str) -> Layout:
    """A layout by its name, or a file of one's own.

    Raises:
        DataError: not there, not YAML, or it says what means nothing; all of it at once.
    """
    path = path_of(name)
    values = _read(path)
    try:
        return Layout.model_validate(values)
    except ValidationError as e:
        raise DataError([_problem(path, dict(one)) for one in e.errors()]) from e


def _read(path: Path) -> object:
    fix = "give a layout as docs/layouts.md describes it"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise bad(f"more than {MOST_BYTES:,} bytes, no layout that a person wrote", path, fix)
        return parse(path.read_bytes().decode("utf-8-sig"))
    except OSError as e:
        raise bad(f"cannot be read ({e.strerror})", path, fix) from e
    except (UnicodeDecodeError, yaml.YAMLError) as e:
        raise bad(f"is no YAML in UTF-8 ({' '.join(str(e).split())})", path, fix) from e


def _problem(path: Path, error: dict[str, Any]) -> Problem:
    place = ".".join(str(p) for p in error["loc"] if p not in ("str", "Listed"))
    said = error["msg"].removeprefix("Value error, ")
    return Problem(
        f"{place + ': ' if place else ''}{said}", str(path), "mend the layout (docs/layouts.md lists its keys)"
    )

"""What a layout may say, typed: unknown keys are refused with the nearest known one.

A template is text with columns in braces: `train_images/{id_code}.png`. Columns are those of the table that lists the samples, those of
tables joined to it, and constants of a table (`set`).
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shards.format.info import FIELD, SPLITS
from shards.format.terms import Commercial

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


def _patterns(values: list[str]) -> list[str]:
    for value in values:
        parts = value.split("/")
        if value.startswith("/") or not any(parts) or any("**" in p and p != "**" for p in parts):
            raise ValueError(f"'{value}' is no pattern of files below the root, in which ** stands between slashes")
    return values


Words = Annotated[dict[str, str], BeforeValidator(_words)]
Names = Annotated[list[str], BeforeValidator(_words), BeforeValidator(_several)]
Globs = Annotated[Names, AfterValidator(_patterns)]


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        raise ValueError(f"is no regular expression ({e})") from e
    return value


Pattern = Annotated[str, BeforeValidator(_pattern)]


class Strict(BaseModel):
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


class Table(Strict):
    """A table of the set. The first of `file` that is there is read; names may have `*`."""

    file: Globs
    columns: Names = []
    """Those that it must have."""
    header: Names = []
    """Names of the columns of a file without a header."""
    called: dict[str, Names] = {}
    """{column: what it is called in other releases}, which are read as that column."""
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


class Listed(Strict):
    """Files as rows: their path (`path`) and the named groups of a pattern that is searched in it are the columns."""

    files: Globs
    pattern: Pattern
    set: Words = {}


class Cell(Strict):
    """A template, or what the groups of a pattern find in it, joined by `_`."""

    value: str
    pattern: Pattern | None = None


class Patient(Cell):
    note: str = ""
    """What is said at every run, such as that the set names no people."""


class FieldOf(Strict):
    """One field of a sample, from files, cells or several rows."""

    path: Names = []
    """Templates of where the file lies below the root, the first that is there counts; `*` stands for any name."""
    every: Globs = []
    """Patterns of all files of this kind: those that no row uses are counted and listed."""
    missing: Literal["refuse", "absent"] = "refuse"
    """A row without its file, or a reference without its row or column of a table, is refused (a file left out too, `--partial`), or the
    sample has no such field."""
    reference: str | None = None
    """Template of a reference as in a manifest: FILE.h5#features (bags), TABLE.csv#ROW (omics)."""
    text: Names = []
    """Templates of the text itself; those that are filled are joined by a line."""
    runs: Runs | None = None
    boxes: Boxes | None = None
    long: Long | None = None
    meaning: Words = {}

    @model_validator(mode="after")
    def _one_way(self) -> FieldOf:
        known = ("path", "reference", "text", "runs", "boxes", "long")
        ways = [n for n in known if getattr(self, n)]
        if len(ways) != 1:
            raise ValueError(f"has {' and '.join(ways) or 'none'} of {', '.join(known)}: give one")
        return self


class Runs(Strict):
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


class Boxes(Strict):
    """Boxes as rows of an array [boxes, 4]; blank cells mean none, and a sample without any has no such field."""

    columns: Annotated[list[str], Field(min_length=4, max_length=4)]
    form: Literal["x y width height", "x0 y0 x1 y1"]
    table: str | None = None
    """The joined table that has them; without it the rows themselves do."""


class Long(Strict):
    """A joined table with a row for each finding of a sample (mutations), or each value (gene by gene), as a vector: one column a feature,
    in alphabetical order, the names as its vocabulary."""

    table: str
    feature: str
    """The column that names features."""
    value: str | None = None
    """The column of the value; without it a feature is 1 where the sample has a row of it, else 0."""
    keep: dict[str, Names] = {}
    """{column: words}: rows with another word do not count."""
    drop: dict[str, Names] = {}
    """{column: words}: rows with one of them do not count, such as silent mutations."""
    least: int = Field(default=1, ge=1)
    """Samples that must have a feature, for it to be one."""
    known: str | None = None
    """A template that is filled where a sample without any row was looked at: nothing was found. Without it such a sample has no such
    field."""


class Label(Strict):
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


class View(Strict):
    """Columns of view positions, of which the first that is filled counts; becomes the label `view`, which `--views` selects by."""

    columns: Names
    words: Words = {}


class Exclude(Strict):
    """Rows that are left out: those whose cell is not one of `keep`, or is one of `drop`."""

    column: str
    keep: Names = []
    drop: Names = []
    why: str


class Splits(Strict):
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


class Header(Strict):
    """Of DICOM files: which header fields become labels. No other enters a data set."""

    labels: Words = {}
    """{keyword of the standard: label}, such as ViewPosition: view."""


class Terms(Strict):
    """What is known of a set as a whole."""

    about: str
    licence: str
    commercial: Commercial = "unknown"
    """Whether its terms allow commercial use."""
    citation: str
    address: str = ""
    quirks: list[str] = []
    """What is unusual about how the set is published, each of it with a test on a miniature."""


class Listing(Strict):
    """How the files and tables of a set become samples."""

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
    slices: Literal["axial", "coronal", "sagittal"] | None = None
    """The NIfTI volumes of a sample are cut, each slice is a sample."""
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
    def _hangs_together(self) -> Listing:
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
        long = [f.long.table for f in self.fields.values() if f.long]
        if odd := [t for t in long if t not in joined or not self.tables[t].several]:
            raise ValueError(f"long.table: '{odd[0]}' is no joined table with several: true")
        return self


class Layout(Listing, Terms):
    """One public set that the engine reads."""


class Argument(Strict):
    """What an option of a source in Python is given, unless the command line gives it."""

    file: Globs = []
    """Patterns of a file or folder below the root, of which one thing may be there."""
    apart: Globs = []
    """Patterns of files that come in several (one a cohort or a chromosome): all of them are taken, if nothing of `file` is there."""
    value: str | None = None
    listed: bool = False
    """The table that `samples` makes."""
    also: dict[str, Words] = {}
    """{pattern: {option: value}}: what is given besides where that pattern is the one that finds something."""
    several: bool = False
    """All that the patterns find, as one option's values."""
    optional: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Argument:
        if sum([bool(self.file), self.value is not None, self.listed]) != 1:
            raise ValueError("give one of file, value, listed")
        if odd := [p for p in self.also if p not in (*self.file, *self.apart)]:
            raise ValueError(f"also: '{odd[0]}' is none of the patterns of file and apart")
        if self.apart and not self.file:
            raise ValueError("apart stands beside file")
        return self


class Sourced(Terms):
    """One public set that a source in Python reads, since YAML cannot say it: what each of its options is below the root."""

    source: str
    fields: list[str] = Field(min_length=1)
    """What its samples have, or may have."""
    labels: str = ""
    """Which labels they have, in words."""
    notes: list[str] = []
    arguments: dict[str, Argument] = Field(min_length=1)
    samples: Listing | None = None
    """Samples as the engine finds them, which become a table of `image`, `patient` and labels for the source."""

    @model_validator(mode="after")
    def _listed(self) -> Sourced:
        if (self.samples is not None) != any(a.listed for a in self.arguments.values()):
            raise ValueError("samples and an argument that is listed go together")
        return self


FieldOf.model_rebuild()

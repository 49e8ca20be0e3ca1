"""A sweep: a file that names a command, words that all its runs share, and what differs from run to run.

    command: pretrain                     # or finetune, or (rows of a table alone) gwas: launch/COMMAND.py
    words: [--method, gimp, steps=200]    # of every run
    grid:                                 # every combination
      seed: [0, 1, 2]
      optim.lr: [1.0e-4, 3.0e-4]
    points:                               # optional: each of these with every combination of the grid
      - {method.rec_weight: 1.0}
      - {method.rec_weight: 0.0, method.triplet_weight: 2.0}

Rows of a published table, with runs of pre-training that are made first: trainer/sweep/rows.py.

A key that starts with `--` is a flag (`--task: [a, b]`), any other a `section.key=value` word. A point is a run in a folder of its
own; its place, name and words are a function of the file alone, so that any machine can run point I (trainer/sweep/runner.py).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from shards.untyped import Json
from trainer.config import yaml_text
from trainer.config.schema import explain_all
from trainer.config.shared import Section
from trainer.errors import UserError
from trainer.sweep.baselines import Baselines
from trainer.sweep.rows import GWAS, PRETRAIN, Column, Row, began, words_for
from trainer.sweep.rows import problems_of as row_problems

ROOT = Path(__file__).resolve().parents[2]
LONGEST_NAME = 120
TASK = "--task"
RECIPE = "--recipe"
MOST_POINTS = 10_000
# Set by the sweep itself, or no part of what a run is.
RESERVED = ("out", "--out", "--dry-run", "--print-config", "--world", "--local_rank")


class SweepFile(Section):
    command: Literal["pretrain", "finetune", "gwas"]
    """The script of launch/ that runs a point."""
    words: tuple[str, ...] = ()
    """Words of its command line, the same for all points."""
    grid: dict[str, list[Json]] = Field(default_factory=dict)
    """Values by key; every combination is a point."""
    points: tuple[dict[str, Any], ...] = ()
    """Sets of values; each is combined with the whole grid."""
    title: str = ""
    """Of the table that rows make."""
    rows: dict[str, Row] = Field(default_factory=dict)
    """In place of grid and points: the rows of a table by name (trainer/sweep/rows.py)."""
    columns: dict[str, Column] = Field(default_factory=dict)
    """Of a table of several tasks, by name: every row is run in each."""
    pretrain: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Words of launch/pretrain.py by name: runs that rows start from, made first."""
    recipes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By the name of a recipe: words in place of `words` when the sweep is given `--recipe NAME`. `--recipe OTHER` among them: the
    methods' recipe has that name. Words with an address (`pretrain.NAME:WORD`) as at the command line, which goes before them."""
    baselines: bool | Baselines = True
    """Runs beside the points that cost little (trainer/sweep/baselines.py); false: none."""


@dataclass(frozen=True)
class Point:
    """One run. `words` is its command line without `out`."""

    index: int
    name: str
    values: Mapping[str, Any]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Instead:
    """Words in whose place a recipe has others."""

    published: Mapping[str, object]
    here: Mapping[str, object]

    @property
    def tasks(self) -> tuple[str, str]:
        """The task of the published numbers, and the one that is run."""
        return str(self.published.get(TASK, "its task")), str(self.here.get(TASK, "another task"))


@dataclass(frozen=True)
class Sweep:
    """Points in the file's order, each with a folder below `out`."""

    file: Path
    command: str
    out: Path
    points: tuple[Point, ...]
    first: Sweep | None = None
    """Runs of pre-training that points start from."""
    starts: Mapping[str, str] = field(default_factory=dict)
    """{point: the point of `first` that it starts from}."""
    rows: Mapping[str, Row] = field(default_factory=dict)
    """{point: the row of a table that it belongs to}, in the file's order."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """By name; the `values` of a point say which are read from its run."""
    title: str = ""
    recipe: str | None = None
    of_methods: str | None = None
    """The recipe of its runs: of the same name, or the one that the words of `recipe` name."""
    instead: Mapping[str, Instead] = field(default_factory=dict)
    """By column, "" of a table without: where the recipe runs another task than the published numbers are of."""
    baselines: Baselines | None = None
    """What its file says of baselines; None: it has none."""

    def folder(self, point: Point) -> Path:
        return self.out / point.name

    def methods(self) -> list[str]:
        """The methods that its points name."""
        named = {w for p in self.points for flag, w in zip(p.words, p.words[1:], strict=False) if flag == "--method"}
        return sorted(named)

    def command_line(self, point: Point) -> list[str]:
        script = str(ROOT / "launch" / f"{self.command}.py")
        out = ("--out", str(self.folder(point))) if self.command == GWAS else (f"out={self.folder(point)}",)
        return [sys.executable, script, *point.words, *out]


def read_sweep(file: Path, out: Path | None = None, recipe: str | None = None, more: Sequence[str] = ()) -> Sweep:
    """The sweep in a YAML file; its runs go below `out` (runs/NAME OF THE FILE by default).

    Args:
        recipe: given to every run that takes one, and the words of `recipes` that go with it.
        more: words of all points; those of `data` go to the runs of `pretrain` as well. In a table `COLUMN:WORD` is for one
            column, `pretrain:WORD` for all runs that rows start from, `pretrain.NAME:WORD` for one. In a table of `gwas` a word
            KEY=VALUE is the flag `--KEY VALUE` of every study, and words of `data` are for what rows start from alone.

    Raises:
        UserError: every problem of the file: unknown keys, empty lists, reserved words, doubled keys or points.
    """
    content = _read(file)
    try:
        given = SweepFile.model_validate(content)
    except ValidationError as e:
        raise UserError([f"{file}: {line}" for line in explain_all(SweepFile, e)]) from e
    if problems := list(_problems(given)):
        raise UserError([f"{file}: {p}" for p in problems])
    out = out or Path("runs") / file.stem
    if given.rows:
        return _table_of(file, given, out, recipe, more)
    if recipe is not None:
        raise UserError(f"--recipe {recipe}: {file} has no rows; write --recipe among its words")
    given = given.model_copy(update={"words": (*given.words, *more)})
    if (many := max(len(given.points), 1) * math.prod(len(v) for v in given.grid.values())) > MOST_POINTS:
        raise UserError(f"{file}: {many:,} points, at most {MOST_POINTS:,}: give fewer values")
    values = [
        {**point, **dict(zip(given.grid, combination, strict=True))}
        for point in given.points or ({},)
        for combination in itertools.product(*given.grid.values())
    ]
    words = [(*given.words, *(w for k, v in one.items() for w in words_of(k, v))) for one in values]
    names = names_of(values)
    points = tuple(Point(i, n, v, w) for i, (n, v, w) in enumerate(zip(names, values, words, strict=True)))
    refuse_doubles(file, points, [tuple(sorted(p.words)) for p in points])
    return Sweep(file, given.command, out, points, baselines=_baselines(given))


def _table_of(file: Path, given: SweepFile, out: Path, recipe: str | None, more: Sequence[str]) -> Sweep:
    """Rows (in every column) as points named after them, and what they start from as a sweep of its own."""
    shared, flag = _with_recipe(given, recipe)
    to = _addressed(file, given, _with_addressed(given, recipe, more))
    first = [
        Point(i, safe_name(name), {"pretrain": name}, (*words, *flag, *to[f"{PRETRAIN}.{name}"]))
        for i, (name, words) in enumerate(given.pretrain.items())
    ]
    made = Sweep(file, "pretrain", out / "pretrain", tuple(first))
    folder = {p.values["pretrain"]: made.folder(p) for p in first}
    points: list[Point] = []
    for name, row in given.rows.items():
        start = flag if row.start is None else began(given.command, str(folder[row.start]))
        # Columns that differ in the metric alone are one run.
        columns: dict[tuple[str, ...], list[str]] = {}
        for at in given.columns or [""]:
            column = given.columns[at].words_with(recipe) if at else {}
            own = (w for k, v in {**column, **row.words}.items() for w in words_of(k, v))
            columns.setdefault((*shared, *own, *start, *words_for(given.command, to[at])), []).append(at)
        for words, named in columns.items():
            called = "_".join(safe_name(part) for part in (name, *(named[:1] if len(columns) > 1 else ())))
            values = {"row": name, **({"columns": tuple(named)} if given.columns else {})}
            points.append(Point(len(points), called, values, words))
    for some in (first, points):
        refuse_doubles(file, some, [p.name.lower() for p in some])
    row_of = {p.name: given.rows[p.values["row"]] for p in points}
    starts = {at: safe_name(row.start) for at, row in row_of.items() if row.start is not None}
    return Sweep(
        file, given.command, out, tuple(points), made if first else None, starts, row_of, given.columns, given.title,
        recipe, flag[-1] if flag else None, _instead(given, recipe), _baselines(given),
    )  # fmt: skip


def _with_recipe(given: SweepFile, recipe: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of all rows, and those that give each run its method's recipe: of the same name, or the one that the words name."""
    if recipe is None:
        return given.words, ()
    words = tuple(w for w in given.recipes.get(recipe, given.words) if not _address(w))
    if RECIPE not in words:
        return words, (RECIPE, recipe)
    at = words.index(RECIPE)
    return (*words[:at], *words[at + 2 :]), words[at : at + 2]


def _with_addressed(given: SweepFile, recipe: str | None, more: Sequence[str]) -> Sequence[str]:
    """`more`, after the recipe's words that are for a run or column by name and that `more` does not give anew."""
    told = {w.partition("=")[0] for w in more}
    own = (w for w in given.recipes.get(recipe or "", ()) if _address(w))
    return [*(w for w in own if w.partition("=")[0] not in told), *more]


def _baselines(given: SweepFile) -> Baselines | None:
    if given.command != "finetune" or given.baselines is False:
        return None
    return Baselines() if given.baselines is True else given.baselines


def _instead(given: SweepFile, recipe: str | None) -> dict[str, Instead]:
    """Of each column (of the whole table, where it has none) the words of a recipe that make it another task or amount of labels."""
    if recipe is None:
        return {}
    published, here = _task_of(given.words), _task_of(given.recipes.get(recipe, given.words))
    pairs = {at: ({**published, **c.words}, {**here, **c.words_with(recipe)}) for at, c in given.columns.items()}
    pairs = pairs or {"": (published, here)}
    differing = {at: [k for k in here if was.get(k) != here[k]] for at, (was, here) in pairs.items()}
    return {
        at: Instead({k: pairs[at][0].get(k, "none") for k in keys}, {k: pairs[at][1][k] for k in keys})
        for at, keys in differing.items()
        if keys
    }


def _task_of(words: Sequence[str]) -> dict[str, object]:
    return {flag: w for flag, w in itertools.pairwise(words) if flag == TASK}


def _addressed(file: Path, given: SweepFile, more: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Words of the command line by whom they are for: each column ("" where there is none), and `pretrain.NAME` of each run that
    rows start from.

    A word for one of them stands in place of the same key's word for more.
    """
    first = [f"{PRETRAIN}.{name}" for name in given.pretrain]
    known = [*given.columns, PRETRAIN, *first]
    told: dict[str, dict[str, str]] = {at: {} for at in ("", *known)}
    if unknown := dict.fromkeys(_address(w) for w in more if _address(w) not in told):
        raise UserError([f"{at}: {file} has no such column or run (there: {', '.join(known)})" for at in unknown])
    keys = [w.partition("=")[0] for w in more]
    if twice := [k for k in dict.fromkeys(keys) if keys.count(k) > 1]:
        raise UserError([f"{k}: given {keys.count(k)} times; keep one of them" for k in twice])
    for word in more:
        own = word.removeprefix(f"{_address(word)}:")
        told[_address(word)][own.partition("=")[0]] = own
    data = {k: w for k, w in told[""].items() if k.startswith("data.")}
    to = {at: (told[""] | told[at]) for at in given.columns or [""]}
    to |= {at: data | told[PRETRAIN] | told[at] for at in first}
    return {at: tuple(words.values()) for at, words in to.items()}


def _address(word: str) -> str:
    return word.partition("=")[0].rpartition(":")[0]


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file}: no such file; docs/finetune.md shows one")
    content = yaml_text.read(file, "a sweep (command, words, grid, points; docs/finetune.md)")
    if not content:
        raise UserError(
            f"{file}: empty: a sweep is a mapping with command, words, grid, points; docs/finetune.md shows one"
        )
    return content


def _problems(given: SweepFile) -> Iterator[str]:
    if given.rows or given.pretrain:
        yield from row_problems(given.rows, given.columns, given.pretrain, given.command)
        if given.grid or given.points:
            yield "rows stand beside grid or points; give rows alone, or leave them out"
        yield from (
            f"recipes.{name}: {RECIPE} names no recipe of methods; write {RECIPE} demo, or leave it out"
            for name, words in given.recipes.items()
            if words[-1:] == (RECIPE,)
        )
    elif given.recipes or given.title or given.columns:
        yield "columns, recipes, title: they belong to rows; leave them out"
    if not given.grid and not given.points and not given.rows:
        yield "neither grid nor points says what differs; for a single run give the command itself"
    yield from (f"grid.{k}: an empty list; give values or leave the key out" for k, v in given.grid.items() if not v)
    differing = [*given.grid, *(k for p in given.points for k in p), *(k for r in given.rows.values() for k in r.words)]
    differing += [k for c in given.columns.values() for words in (c.words, *c.recipes.values()) for k in words]
    fixed = [w.partition("=")[0] for w in given.words]
    for i, point in enumerate(given.points):
        yield from (f"points[{i}].{k} stands in the grid too; keep one of them" for k in point if k in given.grid)
    for key in dict.fromkeys(differing):
        if key in fixed:
            yield f"{key} stands among the words and among what differs; keep one of them"
    for key in dict.fromkeys([*fixed, *differing]):
        if key in RESERVED:
            yield f"{key}: a sweep sets it itself (or it is no part of a run); leave it out"
        elif not key or any(c.isspace() or c == "=" for c in key):
            yield f"'{key}' is no key: write section.key or --flag"


def words_of(key: str, value: Json) -> list[str]:
    """The words of a command line that say `key` is `value`; a flag that is true stands alone, one that is false is left out."""
    if key.startswith("--"):
        return [] if value is False else [key] if value is True else [key, str(value)]
    text = value if isinstance(value, str) else json.dumps(value)
    # What the other side would read as something else (a number, a list) is quoted.
    return [f"{key}={text if yaml_text.parse(text) == value else json.dumps(value)}"]


def refuse_doubles(file: Path, points: Sequence[Point], runs: Sequence[Hashable]) -> None:
    """`runs` says what each point is, in a form that is equal for equal runs.

    Raises:
        UserError: points that are the same run, all of them.
    """
    first: dict[Hashable, Point] = {}
    problems = []
    for point, run in zip(points, runs, strict=True):
        other = first.setdefault(run, point)
        if other is not point:
            problems.append(
                f"{file}: points {other.index} and {point.index} are the same run "
                f"({text_of(other.values)}; {text_of(point.values)}); keep one of them"
            )
    if problems:
        raise UserError(problems)


def text_of(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in values.items())


# ------------------------------------------------------------------------------------------------------------------- names


def names_of(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Folder names that say what differs: `seed-0_lr-0.0001`; a hash is added where a name would be too long or not its own."""
    keys = list(dict.fromkeys(k for v in values for k in v))
    short = {k: k.lstrip("-").split(".")[-1] for k in keys}
    count = Counter(short.values())
    labels = {k: s if count[s] == 1 else k.lstrip("-") for k, s in short.items()}
    plain = ["_".join(f"{safe_name(labels[k])}-{safe_name(v)}" for k, v in one.items()) for one in values]
    times = Counter(n.lower() for n in plain)
    return [
        name if times[name.lower()] == 1 and len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{_hash(one)}"
        for name, one in zip(plain, values, strict=True)
    ]


def safe_name(value: Json) -> str:
    """A part of a folder's name."""
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-.") or "none"


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:8]

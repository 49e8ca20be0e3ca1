"""The keys of a sweep's file, and which of them do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from shards.untyped import Json
from trainer.config.shared import Section
from trainer.sweep.baselines import Baselines
from trainer.sweep.rows import Column, Row
from trainer.sweep.rows import problems_of as row_problems

RECIPE = "--recipe"
RESERVED = ("out", "--out", "--dry-run", "--print-config", "--world", "--local_rank")
"""Set by the sweep itself, or no part of what a run is."""


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

    @property
    def with_baselines(self) -> Baselines | None:
        """What is asked of baselines; only fine-tunes have any."""
        if self.command != "finetune" or self.baselines is False:
            return None
        return Baselines() if self.baselines is True else self.baselines


def problems_of(given: SweepFile) -> Iterator[str]:
    yield from _form(given)
    if not given.grid and not given.points and not given.rows:
        yield "neither grid nor points says what differs; for a single run give the command itself"
    yield from _twice(given)
    for key in _keys(given):
        if key in RESERVED:
            yield f"{key}: a sweep sets it itself (or it is no part of a run); leave it out"
        elif not key or any(c.isspace() or c == "=" for c in key):
            yield f"'{key}' is no key: write section.key or --flag"


def _form(given: SweepFile) -> Iterator[str]:
    """A table of rows, or a grid and points: what belongs to the other one is told."""
    if not given.rows and not given.pretrain:
        if given.recipes or given.title or given.columns:
            yield "columns, recipes, title: they belong to rows; leave them out"
        return
    yield from row_problems(given.rows, given.columns, given.pretrain, given.command)
    if given.grid or given.points:
        yield "rows stand beside grid or points; give rows alone, or leave them out"
    for name, words in given.recipes.items():
        if words[-1:] == (RECIPE,):
            yield f"recipes.{name}: {RECIPE} names no recipe of methods; write {RECIPE} demo, or leave it out"


def _twice(given: SweepFile) -> Iterator[str]:
    """Empty lists of values, and keys that stand in two places of which each gives a value."""
    yield from (f"grid.{k}: an empty list; give values or leave the key out" for k, v in given.grid.items() if not v)
    for i, point in enumerate(given.points):
        yield from (f"points[{i}].{k} stands in the grid too; keep one of them" for k in point if k in given.grid)
    fixed = _fixed(given)
    for key in dict.fromkeys(_differing(given)):
        if key in fixed:
            yield f"{key} stands among the words and among what differs; keep one of them"


def _keys(given: SweepFile) -> list[str]:
    """All keys, each once, in the order of the file."""
    return list(dict.fromkeys([*_fixed(given), *_differing(given)]))


def _fixed(given: SweepFile) -> list[str]:
    return [w.partition("=")[0] for w in given.words]


def _differing(given: SweepFile) -> list[str]:
    """Keys of the grid, of points, rows and columns."""
    keys = [*given.grid, *(k for p in given.points for k in p), *(k for r in given.rows.values() for k in r.words)]
    return keys + [k for c in given.columns.values() for words in (c.words, *c.recipes.values()) for k in words]

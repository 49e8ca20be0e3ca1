"""Rows of a published table, as a sweep's file has them: what a row is, what it starts from, and the number that was printed.

    pretrain:                                       # made first, in OUT/pretrain/NAME
      whole: [--method, gimp]
    rows:
      ROW: {words: {--method: NAME}, published: {value: 0.7737, of: [190]}}
      GiMP:  {words: {--method: gimp, inputs: multimodal}, start: whole, published: {value: 0.9947, of: [189, 190]}}
    recipes:                                        # `--recipe demo`: these in place of `words`
      demo: [--task, demo_subtype]
      small: [--recipe, demo, --task, nsclc_subtype]  # `--recipe small`: the methods' recipe `demo` on real data

`of` says of which sizes of a test set a published number is a fraction, which is checked: a number that is a fraction of none has [].

A table of genome-wide studies (`command: gwas`) has the counts of a study's summary as metrics, and a run for every row to start from.

A table of several tasks, or of several amounts of labels, has columns; every row is then a run in each of them:

    columns:
      APTOS: {words: {--task: aptos}, metric: kappa_quadratic, scale: 100, recipes: {demo: {--task: demo_grade}}}
    rows:
      MAE: {words: {--method: mae}, printed: {APTOS: 84.06}}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from trainer.config.shared import Section

PRETRAIN = "pretrain"
"""Before a colon, as a column's name is: words of the command line for the runs that rows start from."""
GWAS = "gwas"
"""The command whose runs are studies of what rows start from."""
STUDY = "gwas.json"
"""The summary of a study."""
NORMAL = 1.959964
"""Half of a 95 % interval, in standard deviations."""


class Published(Section):
    """A published share of right cases, as printed; `of`: the sizes that it is a fraction of."""

    value: float = Field(ge=0, le=1)
    of: tuple[int, ...] = ()
    digits: int = Field(4, ge=1, le=6)
    """Places behind the point that were printed."""

    def right(self, n: int) -> int | None:
        """k of k / n; None where no k gives the printed number."""
        k = round(self.value * n)
        return k if abs(k / n - self.value) <= 0.5 * 10**-self.digits * (1 + 1e-9) else None


class Column(Section):
    """A task, or an amount of labels, in which every row has a number."""

    words: dict[str, Any]
    """As of a point, for all rows."""
    metric: str
    """The entry of result.json that the table shows."""
    scale: float = Field(1, gt=0)
    """A printed number is ours times this: 100 where percent were printed."""
    digits: int = Field(2, ge=0, le=6)
    """Places behind the point that were printed."""
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By the name of a recipe: in place of `words` when the sweep is given `--recipe NAME`."""

    def words_with(self, recipe: str | None) -> Mapping[str, object]:
        return self.words if recipe is None else self.recipes.get(recipe, self.words)


class Row(Section):
    words: dict[str, Any]
    """As of a point: `--flag` or `section.key`, and its value."""
    start: str | None = None
    """The entry of `pretrain` whose run it starts from."""
    published: Published | None = None
    """Of a table without columns."""
    printed: dict[str, float] = Field(default_factory=dict)
    """By column: the published number, as printed."""
    group: str = ""
    """What rows of a table have in common, such as the modalities that they read."""
    note: str = ""


def began(command: str, run: str) -> tuple[str, ...]:
    """The words by which a row's run starts from another one."""
    return (run,) if command == GWAS else ("--init", run)


def words_for(command: str, words: Sequence[str]) -> tuple[str, ...]:
    """Words of the sweep's own command line as its runs take them: flags, for a study."""
    if command != GWAS:
        return tuple(words)
    pairs = (w.partition("=") for w in words if not w.startswith("data."))
    return tuple(part for key, _, value in pairs for part in (f"--{key}", value))


def wilson(k: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (1927); `k` may be a mean over seeds."""
    p, zz = k / n, NORMAL**2 / n
    middle, half = p + zz / 2, NORMAL * math.sqrt(p * (1 - p) / n + zz / (4 * n))
    return (middle - half) / (1 + zz), (middle + half) / (1 + zz)


def problems_of(
    rows: Mapping[str, Row], columns: Mapping[str, Column], pretrain: Mapping[str, Sequence[str]], command: str
) -> Iterator[str]:
    """What is wrong with rows, columns and the runs that rows start from."""
    yield from _problems_of_columns(rows, columns)
    if command == "pretrain":
        yield "rows, pretrain: they belong to command: finetune or gwas, not pretrain; give points, or another command"
    if command == GWAS and not columns:
        yield "columns: a table of studies needs them; name one with `metric: clumps`"
    for name, row in rows.items():
        if command == GWAS and row.start is None:
            yield f"rows.{name}: a study is of a run of pre-training; give start, one of {', '.join(pretrain) or 'pretrain'}"
        if row.start is not None and row.start not in pretrain:
            known = ", ".join(pretrain) or "none"
            yield f"rows.{name}.start: there is no '{row.start}' in pretrain (there: {known}); mend one of them"
        if row.start is not None and "--init" in row.words:
            yield f"rows.{name}: start and --init both say what it begins from; keep one of them"
        for n in row.published.of if row.published else ():
            if row.published is not None and row.published.right(n) is None:
                yield f"rows.{name}.published: {row.published.value} is no fraction of {n}; mend the value, or take {n} out of `of`"
    used = {row.start for row in rows.values()}
    yield from (f"pretrain.{name}: no row starts from it; leave it out" for name in pretrain if name not in used)


def _problems_of_columns(rows: Mapping[str, Row], columns: Mapping[str, Column]) -> Iterator[str]:
    known = ", ".join(columns)
    for name, row in rows.items():
        if columns and row.published is not None:
            yield f"rows.{name}.published: this table has columns; write printed: {{COLUMN: number}} ({known})"
        for at in row.printed:
            if at not in columns:
                yield f"rows.{name}.printed.{at}: there is no such column (there: {known or 'none'}); mend one of them"
        for at, column in columns.items():
            differing = {k for words in (column.words, *column.recipes.values()) for k in words}
            for key in sorted(differing & set(row.words)):
                yield f"rows.{name}.words.{key} stands in columns.{at} too; keep one of them"
    for at in columns:
        if at == PRETRAIN or ":" in at:
            yield f"columns.{at}: words of the command line begin with it and a colon; rename it (no colon, not '{PRETRAIN}')"

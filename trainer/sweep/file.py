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

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.config import yaml_text
from trainer.config.schema import explain_all
from trainer.errors import UserError
from trainer.sweep.points import Point, Sweep, names_of, refuse_doubles, words_of
from trainer.sweep.schema import SweepFile, problems_of
from trainer.sweep.table import table_of

MOST_POINTS = 10_000


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
    if problems := list(problems_of(given)):
        raise UserError([f"{file}: {p}" for p in problems])
    out = out or Path("runs") / file.stem
    if given.rows:
        return table_of(file, given, out, recipe, more)
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
    return Sweep(file, given.command, out, points, baselines=given.with_baselines)


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file}: no such file; docs/finetune.md shows one")
    content = yaml_text.read(file, "a sweep (command, words, grid, points; docs/finetune.md)")
    if not content:
        raise UserError(
            f"{file}: empty: a sweep is a mapping with command, words, grid, points; docs/finetune.md shows one"
        )
    return content

"""A table's rows (in every column) as runs named after them, and what they start from as a sweep of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trainer.errors import UserError
from trainer.sweep.points import TASK, Instead, Point, Sweep, refuse_doubles, safe_name, words_of
from trainer.sweep.rows import PRETRAIN, began, words_for
from trainer.sweep.schema import RECIPE, SweepFile


def table_of(file: Path, given: SweepFile, out: Path, recipe: str | None, more: Sequence[str]) -> Sweep:
    """The sweep of a file with rows; its arguments are those of `read_sweep`."""
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
        for called, values, words in _runs_of(name, given, recipe, to, (shared, start)):
            points.append(Point(len(points), called, values, words))
    for some in (first, points):
        refuse_doubles(file, some, [p.name.lower() for p in some])
    row_of = {p.name: given.rows[p.values["row"]] for p in points}
    starts = {at: safe_name(row.start) for at, row in row_of.items() if row.start is not None}
    return Sweep(
        file, given.command, out, tuple(points), made if first else None, starts, row_of, given.columns, given.title,
        recipe, flag[-1] if flag else None, _instead(given, recipe), given.with_baselines,
    )  # fmt: skip


def _runs_of(
    name: str,
    given: SweepFile,
    recipe: str | None,
    to: Mapping[str, tuple[str, ...]],
    around: tuple[tuple[str, ...], tuple[str, ...]],
) -> Iterator[tuple[str, dict[str, object], tuple[str, ...]]]:
    """Name, values and words of the runs of a row: one for its columns whose words are the same, which differ in the metric alone.

    Args:
        to: words of the command line, by column.
        around: words before those of column and row, and between these and `to`.
    """
    columns: dict[tuple[str, ...], list[str]] = {}
    for at in given.columns or [""]:
        column = given.columns[at].words_with(recipe) if at else {}
        own = (w for k, v in {**column, **given.rows[name].words}.items() for w in words_of(k, v))
        columns.setdefault((*around[0], *own, *around[1], *words_for(given.command, to[at])), []).append(at)
    for words, named in columns.items():
        called = "_".join(safe_name(part) for part in (name, *(named[:1] if len(columns) > 1 else ())))
        yield called, {"row": name, **({"columns": tuple(named)} if given.columns else {})}, words


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

"""A published table beside what the same rows came to here, each number with its count and its intervals.

Two intervals stand beside each other because they answer different questions: Wilson's takes cases as independent, as published tables do;
the other resamples patients with all their cases. Neither knows that another seed or split would give another number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.errors import UserError
from trainer.reporting import cases, regions, report, words
from trainer.reporting.result import NAME, Result, read_result
from trainer.reporting.result_parts import Measured
from trainer.reporting.table import Table, markdown
from trainer.state.files import write_atomic
from trainer.sweep.points import Sweep
from trainer.sweep.rows import GWAS, Column, Published, Row, wilson

METRIC = "accuracy"
HEAD = (
    "", "reads", "starts from", "here", "k of n", "Wilson", "over patients", "published", "k of n", "Wilson, published", "remark",
)  # fmt: skip
NOTE = (
    "here: accuracy, mean over seeds, of the weights that validation chose; k of n: right cases of each seed. Wilson: 95 %, of the mean, "
    "cases taken as independent; over patients: patients resampled with all their cases. A published number is marked with the sizes of a "
    "test set that it can be a fraction of; rows of different sizes were not measured on one test set. Other patients, features and "
    "protocols: a difference between here and published says little about the systems."
)

NOTE_OF_COLUMNS = (
    "Here: mean over seeds, of the weights that validation chose, with the 95 % interval over patients. Other patients and protocols: a "
    "difference between here and published says little about the systems; paired tests of the systems here are in report/."
)


def table_of(sweep: Sweep) -> Table:
    """Numbers are computed anew from the predictions, as in every report.

    Raises:
        UserError: results that cannot be read, whose numbers differ, or that lack the metric of their column (accuracy, where
            there are none); all at once.
    """
    found: dict[str, Result] = {}
    problems = []
    for point in sweep.points:
        path = sweep.folder(point) / NAME
        if not path.is_file():
            continue
        try:
            found[point.name] = cases.recomputed(read_result(path))
        except UserError as e:
            problems += e.problems
            continue
        wanted = [sweep.columns[at].metric for at in point.values["columns"]] if sweep.columns else [METRIC]
        for metric in (m for m in wanted if m not in found[point.name].content.metrics):
            problems.append(
                f"{path}: has no {metric}, which this table is of; add it to `metrics` of the sweep's words"
            )
    if problems:
        raise UserError(problems)
    title = sweep.title or sweep.file.stem
    if sweep.columns:
        return _by_columns(sweep, found, title)
    names = {p.name: str(p.values["row"]) for p in sweep.points}
    rows = [_cells(names[at], row, found.get(at), sweep.starts.get(at)) for at, row in sweep.rows.items()]
    head: tuple[str, ...] = HEAD
    if "" in sweep.instead:
        published, here = sweep.instead[""].tasks
        head = tuple(
            {"here": f"here, of {here}", "published": f"published, of {published}"}.get(cell, cell) for cell in HEAD
        )
    return Table(title, head, tuple(rows), note=f"{_other(sweep)}{NOTE}")


def _other(sweep: Sweep) -> str:
    """Which recipe was run, and what the published numbers are not where it runs another task or another amount of labels."""
    sizes = f"Networks and pre-training are of the systems' recipe `{sweep.of_methods}`. " if sweep.of_methods else ""
    said = [
        f"{at + ': ' if at else ''}{_words(i.here)} in place of {_words(i.published)}"
        for at, i in sweep.instead.items()
    ]
    if not said:
        return sizes
    return (
        f"**With the recipe `{sweep.recipe}` the numbers here are of other tasks or amounts of labels than the published ones and say "
        f"nothing beside them** ({'; '.join(said)}). {sizes}"
    )


def _words(some: Mapping[str, object]) -> str:
    return ", ".join(f"{key.removeprefix('--').removeprefix('protocol.')} {value}" for key, value in some.items())


def _by_columns(sweep: Sweep, found: Mapping[str, Result], title: str) -> Table:
    """A line a row, two cells a column: our number with its interval over patients, and the printed one."""
    head = ["", "reads", "starts from"]
    for name in sweep.columns:
        other = sweep.instead.get(name)
        head += [f"{_words(other.here)} in place of {name}" if other else name, f"{name}, published"]
    rows: dict[str, dict[str, tuple[str, str]]] = {}
    for point in sweep.points:
        printed = sweep.rows[point.name].printed
        pairs = {at: _pair(sweep.columns[at], found.get(point.name), printed.get(at)) for at in point.values["columns"]}
        rows.setdefault(point.values["row"], {}).update(pairs)
    of = {p.values["row"]: (sweep.rows[p.name], sweep.starts.get(p.name, "nothing")) for p in sweep.points}
    lines = [
        (
            name,
            of[name][0].group or words.NONE,
            of[name][1],
            *(c for at in sweep.columns for c in pairs[at]),
            of[name][0].note,
        )
        for name, pairs in rows.items()
    ]
    units = "; ".join(
        f"{name}: {c.metric}" + (f" x {c.scale:g}" if c.scale != 1 else "") for name, c in sweep.columns.items()
    )
    return Table(title, (*head, "remark"), tuple(lines), note=f"{_other(sweep)}{units}. {NOTE_OF_COLUMNS}")


def _pair(column: Column, result: Result | None, printed: float | None) -> tuple[str, str]:
    def text(value: float) -> str:
        return f"{value * column.scale:.{column.digits}f}"

    published = words.NONE if printed is None else f"{printed:.{column.digits}f}"
    if result is None:
        return "no result", published
    m = result.content.metrics[column.metric]
    span = "" if m.interval is None else f" ({text(m.interval[0])} to {text(m.interval[1])})"
    return f"{text(m.value)}{span}{_marks(m, result)}", published


def _marks(m: Measured, result: Result) -> str:
    return " [CONSTANT]" * m.never_left_one_answer + " [LEAK]" * (result.content.leak.tested_on > 0)


def _cells(name: str, row: Row, result: Result | None, start: str | None) -> tuple[str, ...]:
    return (name, row.group or words.NONE, start or "nothing", *_here(result), *_published(row.published), row.note)


def _here(result: Result | None) -> tuple[str, ...]:
    if result is None:
        return ("no result", *[words.NONE] * 3)
    m = result.content.metrics[METRIC]
    low, high = wilson(m.value * m.n, m.n)
    return f"{m.value:.4f}{_marks(m, result)}", words.count(m), words.span((low, high)), words.sure(m)


def _published(p: Published | None) -> tuple[str, ...]:
    if p is None:
        return (words.NONE,) * 3
    counts = " or ".join(f"{p.right(n)} of {n}" for n in p.of)
    spans = " or ".join(words.span(wilson(p.right(n) or 0, n)) for n in p.of)
    return f"{p.value:.{p.digits}f}", counts or "no fraction of the sizes stated", spans or words.NONE


def write_table(sweep: Sweep, beside: Sequence[Path] = ()) -> str:
    """Writes OUT/table.md, and OUT/report with paired tests and plots where there are results; returns the table for the terminal.

    beside: folders of further results for the report, as of baselines.
    """
    table = regions.table_of(sweep) if sweep.command == GWAS else table_of(sweep)
    text = f"# {table.title}\n\n{markdown(table)}\n"
    write_atomic(sweep.out / "table.md", text.encode())
    done = [f for f in (*(sweep.folder(p) for p in sweep.points), *beside) if (f / NAME).is_file()]
    files: list[Path] = [sweep.out / "table.md"]
    if done:
        files += report.write(report.build(done, 1000, 0), sweep.out / "report")
    return "\n".join([text, *(f"  {f}" for f in files)])

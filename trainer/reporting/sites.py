"""What results say of sites, and the same test cases by trainings with and without their site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.errors import UserError
from trainer.reporting import cases, words
from trainer.reporting.groups import Amount, Entry, Group
from trainer.reporting.result_parts import Interval, Sites
from trainer.reporting.table import Table

NOTE = (
    "Of the pooled features of test cases, as the results state it. site read: area under the curve with which a linear probe tells the "
    "site, cross-validated by patient (beside it: from the answer alone). robustness index: PathoROB's, 0 where neighbours share the site "
    "alone, 1 where they share the class alone (beside it: of random neighbours). by patients, sites held out: a linear probe of the "
    "features by folds of patients and by folds of whole sites, mean over the folds that have a value (a site of one class has no area)."
)
HELD_OUT = (
    "The same test cases, by a training with the site's other cases and by one that saw none of them (hold_out). difference: without less "
    "with; its interval is over other patients and other seeds, and unadjusted for the number of rows."
)


def tables(group: Group, amount: Amount, groups: Sequence[Group]) -> Iterator[Table]:
    """Of an amount of labels; nothing where no site was named."""
    said = [(e, e.first.content.sites) for e in group.at(amount)]
    rows = [(e.name, *_cells(sites)) for e, sites in said if sites is not None]
    if rows:
        head = ("", "site read", "robustness index", f"{group.primary}, by patients", "sites held out", "difference")
        yield Table(f"Sites, {amount.name} of the labels", head, tuple(rows), note=NOTE)
    if held_out := [row for g in groups for row in _held_out(group, amount, g)]:
        head = ("", "site", "cases", f"{group.primary}, trained with it", "without it", "difference")
        yield Table(f"Sites held out in training, {amount.name} of the labels", head, tuple(held_out), note=HELD_OUT)


def _cells(s: Sites) -> Iterator[str]:
    if s.not_judged or s.read is None:
        yield f"not judged: {s.not_judged}"
        yield from [words.NONE] * 4
        return
    alone = "" if s.read_from_answer is None else f"; {words.number(s.read_from_answer)}"
    yield f"{words.number(s.read.auc)}{_between(s.read.interval)}{alone}"
    r = s.robustness
    yield words.NONE if r is None else f"{words.number(r.index)}{_between(r.interval)}; {words.number(r.chance)}"
    if s.score is None:
        yield from [words.NONE] * 3
        return
    yield words.number(s.score.random) + s.score.of_folds("random")
    yield words.number(s.score.by_site) + s.score.of_folds("by_site")
    yield f"{words.number(s.score.difference, True)}{_between(s.score.interval, True)}"


def _between(interval: Interval | None, sign: bool = False) -> str:
    return "" if interval is None else f" ({words.span(interval, sign)})"


def _held_out(group: Group, amount: Amount, other: Group) -> Iterator[tuple[str, ...]]:
    """A row for each setting that was trained with and without a site."""
    site = other.held_out
    if site is None or group.held_out is not None or group.external or other.external or other.task != group.task:
        return
    for e in group.at(amount):
        for x in other.at(amount):
            if x.setting == e.setting:
                yield (e.name, site, *_compared(e, x, group.primary))


def _compared(e: Entry, x: Entry, metric: str) -> tuple[str, ...]:
    """Of the cases of the second's test split."""
    from trainer.downstream.metrics.statistics import paired

    without = cases.predictions(x.results)
    keys = set(without[0].keys_N.tolist())
    with_it = [p.take(np.isin(p.keys_N, list(keys))) for p in cases.predictions(e.results)]
    m = e.measured
    try:
        d = paired(
            [_at(p, with_it[0].horizons_H) for p in without],
            with_it,
            metric,
            m.draws,
            m.bootstrap_seed,
            m.level,
        )
    except UserError:
        return (str(len(keys)), words.NONE, words.NONE, "other test cases")
    said = f"{words.number(d.difference, True)} ({words.span((d.low, d.high), True)})"
    return (f"{d.n} ({d.patients} patients)", words.number(d.b), words.number(d.a), said)


def _at(p: Predictions, horizons_H: np.ndarray | None) -> Predictions:
    """At the horizons of the other training; probabilities at horizons of its own are none at those."""
    same = p.horizons_H is not None and horizons_H is not None and np.array_equal(p.horizons_H, horizons_H)
    return replace(p, horizons_H=horizons_H, survival_NH=p.survival_NH if same else None)

"""A task's numbers beside those of the same weights on other data: another hospital's, looked at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainer.reporting import cases, words
from trainer.reporting.groups import Amount, Entry, Group
from trainer.reporting.result import Result
from trainer.reporting.table import Table

NOTE = (
    "Evaluated once, with the weights that were chosen on the run's own validation split. difference: there less here; its "
    "interval resamples the patients of both sets, each by themselves, and says nothing of why (where one set's "
    "resamples do not differ, it has the other's uncertainty alone). Unadjusted for the number of rows."
)


def tables(group: Group, groups: Sequence[Group]) -> list[Table]:
    """One an amount of labels; none where nothing of this group was looked at elsewhere."""
    if group.external:
        return []
    there = [g for g in groups if g.external and any(True for _ in _matches(group, g))]
    return [t for amount in reversed(group.amounts) if there and (t := _table(group, amount, there)) is not None]


def _matches(group: Group, other: Group) -> Iterator[tuple[Entry, Entry]]:
    """Entries here, and those there that have the same weights."""
    for e in group.entries:
        for x in other.entries:
            if elsewhere(e, x.results):
                yield e, x


def elsewhere(e: Entry, results: Sequence[Result]) -> list[Result]:
    """Of these results those of the entry's weights, one for each of its own; none where one is missing."""
    by = {
        r.content.external.predictions_sha256: r for r in results if r.content.external and not r.content.external.own
    }
    found = [by.get(r.content.predictions_sha256) for r in e.results if r.content.predictions_sha256]
    return [r for r in found if r is not None] if len(found) == len(e.results) and None not in found else []


def _table(group: Group, amount: Amount, there: Sequence[Group]) -> Table | None:
    rows, fell = [], list[str]()
    for e in group.at(amount):
        row = [e.name, f"{words.number(e.measured.value)} ({words.sure(e.measured)})"]
        looked = [[r for x in g.entries for r in elsewhere(e, x.results)] for g in there]
        for g, results in zip(there, looked, strict=True):
            value, difference, worse = _cells(e, group, results)
            row += [value, difference]
            fell += [f"{e.label} on {g.external}"] * worse
        if any(looked):
            rows.append(tuple(row))
    if not rows:
        return None
    head = ["", f"{group.primary}, own test cases"]
    for g in there:
        head += [f"on {g.external}", "difference"]
    return Table(f"On other data, {amount.name} of the labels", tuple(head), tuple(rows), note=NOTE + _fallen(fell))


def _fallen(fell: Sequence[str]) -> str:
    """The sentence that a reader must not overlook: the number that misleads."""
    if not fell:
        return ""
    return f" WORSE THERE by an interval that leaves out 0, so that the run's own test cases say too much of it: {', '.join(fell)}."


def _cells(e: Entry, group: Group, results: Sequence[Result]) -> tuple[str, str, bool]:
    """The value there with its interval, what was lost, and whether that is more than chance."""
    from trainer.downstream.metrics.apart import apart

    metric = group.primary
    if not results or any(metric not in r.content.metrics for r in results):
        return words.NONE, words.NONE, False
    m = e.measured
    d = apart(cases.predictions(e.results), cases.predictions(results), metric, m.draws, m.bootstrap_seed or 0, m.level)
    stated = results[0].content.metrics[metric]
    value = f"{words.number(d.b)} ({words.sure(stated)})" if len(results) == 1 else words.number(d.b)
    leak = " [LEAK]" * any(r.content.leak.tested_on > 0 for r in results)
    worse = d.high < 0 if group.higher_is_better else d.low > 0
    return value + leak, f"{words.number(d.difference, True)} ({words.span((d.low, d.high), True)})", worse

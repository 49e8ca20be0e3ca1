"""The primary metric within groups of test patients: a table a label, a line a setting."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.reporting import words
from trainer.reporting.groups import Amount, Entry, Group
from trainer.reporting.result_parts import Subgroup, Subgroups
from trainer.reporting.table import Table

NOTE = (
    "Worst and best are picked on the patients that they are measured on, and the gap (worst minus best) does not know of it. Groups with "
    "too few patients have no value."
)


def tables(group: Group, amount: Amount) -> Iterator[Table]:
    """One for each label that a result of this amount was measured within; of several draws the first."""
    entries = group.at(amount)
    for label in dict.fromkeys(n for e in entries for n in e.first.content.groups):
        having = [(e, e.first.content.groups[label]) for e in entries if label in e.first.content.groups]
        values = sorted({w for _, found in having for w in found.groups})
        rows = tuple(_row(e, found, values) for e, found in having)
        yield Table(f"{group.primary} by {label}, {amount.name}", ("", *values, "worst", "gap"), rows, note=NOTE)


def _row(e: Entry, found: Subgroups, values: list[str]) -> tuple[str, ...]:
    gap = (
        words.NONE if found.gap is None else f"{words.number(found.gap, True)} ({words.span(found.gap_interval, True)})"
    )
    cells = (_cell(found.groups.get(w)) for w in values)
    return (e.name, *cells, found.worst or words.NONE, gap)


def _cell(g: Subgroup | None) -> str:
    if g is None:
        return words.NONE
    if g.value is None:
        return f"{g.patients} patients: {'too few' if g.too_few else 'no value'}"
    return f"{words.number(g.value)} ({words.span(g.interval)}), {g.patients} patients"

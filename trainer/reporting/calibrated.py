"""Probabilities as systems said them beside the same with log odds divided by what the validation split says."""

from __future__ import annotations

from trainer.reporting import words
from trainer.reporting.groups import Amount, Entry, Group
from trainer.reporting.table import Table

NOTE = (
    "In each cell: as said, then with all log odds divided by one temperature a seed, fitted on the validation split alone; of "
    "several draws the first."
)


def table(group: Group, amount: Amount) -> Table | None:
    """A line a setting whose result holds both; None where there is none."""
    having = [e for e in group.at(amount) if e.first.content.calibrated]
    names = list(dict.fromkeys(n for e in having for n in e.first.content.calibrated))
    if not having:
        return None
    rows = tuple((e.name, _temperatures(e), *(_both(e, n) for n in names)) for e in having)
    return Table(
        f"Calibration as said and by temperature, {amount.name}", ("", "temperatures", *names), rows, note=NOTE
    )


def _temperatures(e: Entry) -> str:
    found = [f.get("temperature") for f in e.first.content.recalibration]
    return ", ".join(words.number(t) for t in found if isinstance(t, float))


def _both(e: Entry, name: str) -> str:
    c = e.first.content
    raw, divided = c.metrics.get(name), c.calibrated.get(name)
    return "; ".join(f"{words.number(m.value)} ({words.sure(m)})" for m in (raw, divided) if m is not None)

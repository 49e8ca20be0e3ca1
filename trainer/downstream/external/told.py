"""A look, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.downstream.external.opened import External
from trainer.downstream.results import summary


def first_lines(found: External) -> Iterator[str]:
    """Before anything is computed: what was made of the data set, and what must not be overlooked."""
    setting, at = found.setting, found.indices
    patients = len(set(setting.data.patients_of(at)))
    yield f"{setting.data.path}, {found.split}: {len(at)} cases of {patients} patients, for {found.trained.path}"
    if setting.first_line and found.evaluate:
        yield setting.first_line
    yield from setting.meaning if found.evaluate else ()
    for why, n in setting.targets.left_out.items():
        yield f"{n} samples take no part: {why}"
    yield from found.notes
    if found.leaks and not found.evaluate:
        yield "SEEN: what is said of these is no prediction for new patients: " + "; ".join(found.leaks[:-1])


def told(found: External, content: Mapping[str, Any], out: Path) -> str:
    """After it: the table of a result, what was lost, where the files lie."""
    lines = [summary(content, out)] if found.evaluate else []
    external = content.get("external", {})
    if external.get("own"):
        lines.append("  these are the run's own test cases: nothing is compared")
    for metric, d in external.get("drop", {}).items():
        if d["difference"] is None:
            lines.append(f"  {metric}: no difference, it has no value on one of the two")
            continue
        low, high = d["interval"]
        sure = "no interval" if low is None or high is None else f"{100 * d['level']:g} % {low:+.4f} to {high:+.4f}"
        lines.append(
            f"  {metric}: {d['internal']:.4f} on the run's own test cases, {d['external']:.4f} here: {d['difference']:+.4f} ({sure})"
        )
    n = content["n"]
    lines.append(f"  {n['test']} cases of {n['test_patients']} patients: {out / 'predictions.csv'}")
    lines.append(f"  how they differ from the run's: {out / 'shift.png'}")
    return "\n".join(lines)

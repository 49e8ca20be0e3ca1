"""Runs as a table for a person and as JSON for a program. Names come from files: control characters are taken out of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path
from typing import Any

from trainer.runs.read import Listed, Reached
from trainer.tracking.intervals import interval_text

UNITS = (("d", 86400), ("h", 3600), ("min", 60))
WIDEST = 60
HEAD = ("run", "kind", "state", "method", "task", "data", "seeds", "step", "loss", "reached", "wrote")


def age(seconds: float) -> str:
    return next((f"{seconds / size:.0f} {unit}" for unit, size in UNITS if seconds >= size), f"{max(seconds, 0):.0f} s")


def reached_text(r: Reached) -> str:
    value = "not finite" if r.value is None else f"{r.value:.4f}"
    span = interval_text({"interval": r.interval})
    return f"{r.name} {value}" + (f" ({span})" if span != "-" else "") + (" held back" if r.split != "test" else "")


def table(runs: Sequence[Listed]) -> str:
    """One line a run, paths from the folder that all are in, then how many there are of each state."""
    root = commonpath([str(r.path.absolute()) for r in runs])
    now = time.time()
    lines = aligned([HEAD, *(_cells(r, root, now) for r in runs)])
    noted = [f"  {_from(r.path, root)}: {r.state}: {_plain(r.why)}" for r in runs if r.why and r.state != "finished"]
    return "\n".join([root, *lines, *noted, *sweeps(runs, root), counts(runs)])


def _cells(r: Listed, root: str, now: float) -> tuple[str, ...]:
    shown = r.reached[:1] if r.reached and r.reached[0].split == "test" else r.reached[:3]
    return (
        _from(r.path, root), r.kind, r.state, _short(r.title or r.method), _short(r.task), _short(r.data, end=True), _short(r.seed),
        "" if r.step is None else str(r.step), "" if r.loss is None else f"{r.loss:.4f}",
        _short(", ".join(map(reached_text, shown))), "" if r.wrote is None else age(now - r.wrote),
    )  # fmt: skip


def _from(path: Path, root: str) -> str:
    return _plain(str(path.absolute())[len(root) :].lstrip("/")) or "."


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _short(text: str, end: bool = False) -> str:
    """Of a text that is too wide its beginning, or its end."""
    text = _plain(text)
    if len(text) <= WIDEST:
        return text
    return f"...{text[3 - WIDEST :]}" if end else f"{text[: WIDEST - 3]}..."


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as what stands in them; a column without anything below its head is left out."""
    columns = [c for c in zip(*rows, strict=True) if any(c[1:])]
    wide = [max(map(len, c)) for c in columns]
    return [
        "  ".join(f"{x:<{w}}" for x, w in zip(row, wide, strict=True)).rstrip() for row in zip(*columns, strict=True)
    ]


def counts(runs: Sequence[Listed]) -> str:
    found = Counter(r.state for r in runs)
    return f"{len(runs):,} run{'s' * (len(runs) != 1)}: " + ", ".join(f"{n:,} {s}" for s, n in sorted(found.items()))


def sweeps(runs: Sequence[Listed], root: str) -> list[str]:
    """How many points of each sweep are in which state."""
    by: dict[Path, list[Listed]] = {}
    for r in runs:
        if r.of_sweep:
            by.setdefault(r.path.parent, []).append(r)
    return [f"  sweep {_from(at, root)}: {counts(points)}" for at, points in sorted(by.items())]


def plain(r: Listed) -> dict[str, Any]:
    """A run for `--json`: of a value that is not known null."""
    reached = [
        {"metric": x.name, "split": x.split, "value": x.value, "interval": x.interval and list(x.interval)}
        for x in r.reached
    ]
    return {
        "path": str(r.path), "kind": r.kind or None, "state": r.state, "why": r.why, "method": r.method or None, "title": r.title or None,
        "task": r.task or None, "data": r.data or None, "seeds": r.seed or None, "step": r.step, "loss": r.loss, "reached": reached,
        "wrote": r.wrote, "sweep": str(r.path.parent) if r.of_sweep else None,
    }  # fmt: skip

"""metrics.jsonl of a run, for who only looks at it: nothing of what trains is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line that a crash cut short is left out."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = []
    for i, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if i != len(lines) - 1:
                raise
    return rows


TAIL = 1 << 15  # bytes


def last_lines(path: Path) -> list[bytes]:
    """The last lines of a metrics.jsonl, of so many bytes, at least the last whole one; one that a crash cut short is left out."""
    size, tail = path.stat().st_size, TAIL
    while True:
        with open(path, "rb") as f:
            f.seek(max(0, size - tail))
            text = f.read(tail)
        lines = text.split(b"\n")[0 if tail >= size else 1 : -1]
        if lines or tail >= size:
            return lines
        tail *= 16


def row_of(line: bytes) -> dict[str, Any]:
    """Raises: ValueError: no JSON object."""
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("metrics.jsonl holds a line that is no JSON object")
    return row

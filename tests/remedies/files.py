"""What a message tells to do with a file, done."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

from tests.remedies.scenario import Place

Mend = Callable[[Place], object]


def text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def replaced(name: str, old: str, new: str) -> Mend:
    """Other words in a text file or a table."""
    return lambda place: replace(place.folder / name, old, new)


def replace(path: Path, old: str, new: str) -> Path:
    before = text(path)
    assert old in before, f"no {old!r} in:\n{before}"
    data = before.replace(old, new).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def without_column(name: str, column: str) -> Mend:
    def drop(place: Place) -> None:
        rows = list(csv.DictReader(text(place.folder / name).splitlines()))
        table(place.folder / name, [{k: v for k, v in row.items() if k != column} for row in rows])

    return drop


def without_line(name: str, part: str) -> Mend:
    """Without the last line that holds these words."""

    def drop(place: Place) -> None:
        lines = text(place.folder / name).splitlines(keepends=True)
        at = max(i for i, line in enumerate(lines) if part in line)
        (place.folder / name).write_text("".join(lines[:at] + lines[at + 1 :]))

    return drop


def removed(name: str) -> Mend:
    return lambda place: (place.folder / name).unlink()


def moved(name: str, to: str) -> Mend:
    def move(place: Place) -> None:
        (place.folder / to).parent.mkdir(parents=True, exist_ok=True)
        (place.folder / name).rename(place.folder / to)

    return move


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path

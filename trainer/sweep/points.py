"""What a sweep's file comes to: runs, each with a name, a folder and a command line of its own."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.untyped import Json
from trainer.config import yaml_text
from trainer.errors import UserError
from trainer.sweep.rows import GWAS, Column, Row

if TYPE_CHECKING:
    from trainer.sweep.baselines import Baselines

ROOT = Path(__file__).resolve().parents[2]
LONGEST_NAME = 120
TASK = "--task"


@dataclass(frozen=True)
class Point:
    """One run. `words` is its command line without `out`."""

    index: int
    name: str
    values: Mapping[str, Any]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Instead:
    """Words in whose place a recipe has others."""

    published: Mapping[str, object]
    here: Mapping[str, object]

    @property
    def tasks(self) -> tuple[str, str]:
        """The task of the published numbers, and the one that is run."""
        return str(self.published.get(TASK, "its task")), str(self.here.get(TASK, "another task"))


@dataclass(frozen=True)
class Sweep:
    """Points in the file's order, each with a folder below `out`."""

    file: Path
    command: str
    out: Path
    points: tuple[Point, ...]
    first: Sweep | None = None
    """Runs of pre-training that points start from."""
    starts: Mapping[str, str] = field(default_factory=dict)
    """{point: the point of `first` that it starts from}."""
    rows: Mapping[str, Row] = field(default_factory=dict)
    """{point: the row of a table that it belongs to}, in the file's order."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """By name; the `values` of a point say which are read from its run."""
    title: str = ""
    recipe: str | None = None
    of_methods: str | None = None
    """The recipe of its runs: of the same name, or the one that the words of `recipe` name."""
    instead: Mapping[str, Instead] = field(default_factory=dict)
    """By column, "" of a table without: where the recipe runs another task than the published numbers are of."""
    baselines: Baselines | None = None
    """What its file says of baselines; None: it has none."""

    def folder(self, point: Point) -> Path:
        return self.out / point.name

    def methods(self) -> list[str]:
        """The methods that its points name."""
        named = {w for p in self.points for flag, w in zip(p.words, p.words[1:], strict=False) if flag == "--method"}
        return sorted(named)

    def command_line(self, point: Point) -> list[str]:
        script = str(ROOT / "launch" / f"{self.command}.py")
        out = ("--out", str(self.folder(point))) if self.command == GWAS else (f"out={self.folder(point)}",)
        return [sys.executable, script, *point.words, *out]


def words_of(key: str, value: Json) -> list[str]:
    """The words of a command line that say `key` is `value`; a flag that is true stands alone, one that is false is left out."""
    if key.startswith("--"):
        return [] if value is False else [key] if value is True else [key, str(value)]
    text = value if isinstance(value, str) else json.dumps(value)
    # What the other side would read as something else (a number, a list) is quoted.
    return [f"{key}={text if yaml_text.parse(text) == value else json.dumps(value)}"]


def refuse_doubles(file: Path, points: Sequence[Point], runs: Sequence[Hashable]) -> None:
    """`runs` says what each point is, in a form that is equal for equal runs.

    Raises:
        UserError: points that are the same run, all of them.
    """
    first: dict[Hashable, Point] = {}
    problems = []
    for point, run in zip(points, runs, strict=True):
        other = first.setdefault(run, point)
        if other is not point:
            problems.append(
                f"{file}: points {other.index} and {point.index} are the same run "
                f"({text_of(other.values)}; {text_of(point.values)}); keep one of them"
            )
    if problems:
        raise UserError(problems)


def text_of(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in values.items())


def some_of(where: Sequence[str]) -> str:
    """The first, and how many more there are."""
    return where[0] if len(where) == 1 else f"{where[0]} and {len(where) - 1} more"


# ------------------------------------------------------------------------------------------------------------------- names


def names_of(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Folder names that say what differs: `seed-0_lr-0.0001`; a hash is added where a name would be too long or not its own."""
    keys = list(dict.fromkeys(k for v in values for k in v))
    short = {k: k.lstrip("-").split(".")[-1] for k in keys}
    count = Counter(short.values())
    labels = {k: s if count[s] == 1 else k.lstrip("-") for k, s in short.items()}
    plain = ["_".join(f"{safe_name(labels[k])}-{safe_name(v)}" for k, v in one.items()) for one in values]
    times = Counter(n.lower() for n in plain)
    return [
        name if times[name.lower()] == 1 and len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{_hash(one)}"
        for name, one in zip(plain, values, strict=True)
    ]


def safe_name(value: Json) -> str:
    """A part of a folder's name."""
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-.") or "none"


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:8]

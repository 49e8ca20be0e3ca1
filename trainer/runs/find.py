"""Folders below a folder that hold a run: found by the names of their files alone, so that a thousand take no time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError

CONFIG, RESULT, STATUS, METRICS, WEIGHTS = (
    "config.json",
    "result.json",
    "status.json",
    "metrics.jsonl",
    "weights.safetensors",
)
MARKS = frozenset({CONFIG, RESULT, STATUS, METRICS})
PARTS = ("seed-", "control-")
OWN = frozenset(
    [
        "checkpoints",
        "tensorboard",
        "stages",
        "predictions",
        "examples",
        "external",
        "predicted",
        "attention",
        "hang",
        "ends",
    ]
)
"""Folders inside a run that are parts of it."""


@dataclass(frozen=True)
class Folder:
    """A folder with a run, or (`problem`) one that cannot be looked into."""

    path: Path
    files: frozenset[str] = frozenset()
    inside: tuple[str, ...] = ()
    problem: str = ""


def folders(roots: Sequence[Path]) -> list[Folder]:
    """Folders with runs below `roots`, each once, by their paths; links to folders are not followed.

    Raises:
        UserError: a root that is not there, or none of them holds a run.
    """
    if missing := [p for p in roots if not p.is_dir()]:
        raise UserError([f"{p}: no such folder; give folders that hold runs (out=FOLDER)" for p in missing])
    found = {f.path: f for root in roots for f in _below(root)}
    if not found:
        raise UserError(
            f"no run under {', '.join(map(str, roots))}; give the folder that runs were written below (out=FOLDER, --out of a sweep)"
        )
    return [found[p] for p in sorted(found)]


def _below(root: Path) -> Iterator[Folder]:
    waiting = [str(root)]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(path) as entries:
                each = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
        except OSError as e:
            yield Folder(Path(path), problem=f"cannot be read ({e.strerror})")
            continue
        files = frozenset(n for n, is_dir in each if not is_dir)
        inside = [n for n, is_dir in each if is_dir and not n.startswith(".")]
        is_run = bool(files & MARKS)
        if is_run:
            yield Folder(Path(path), files, tuple(sorted(inside)))
        waiting += [os.path.join(path, n) for n in inside if not is_run or not (n in OWN or n.startswith(PARTS))]

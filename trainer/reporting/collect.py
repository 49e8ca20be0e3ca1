"""Finds results under the folders given, at any depth, and the fine-tunes there that have none yet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shards.untyped import Json
from trainer.errors import UserError
from trainer.reporting.result import NAME, Result, read_result

CONFIG = "config.json"


@dataclass(frozen=True)
class Running:
    """A fine-tune without a result: still going, stopped, or ended by an error; the file cannot tell which."""

    folder: Path
    task: str
    method: str
    last_wrote: str


@dataclass(frozen=True)
class Found:
    results: tuple[Result, ...]
    running: tuple[Running, ...]


def collect(paths: Sequence[Path], checked: Callable[[Result], Result] = lambda r: r) -> Found:
    """Reads every result.json under `paths` once, in the order of their names.

    Args:
        checked: what else is asked of a result that could be read; a UserError of it is told with all others.

    Raises:
        UserError: a path that is not there, a result that cannot be read, nothing found; all problems at once.
    """
    problems = [f"{p}: not there; give folders that hold fine-tune runs" for p in paths if not p.exists()]
    results: dict[Path, Result] = {}
    running: dict[Path, Running] = {}
    for path in paths:
        for folder, files in _folders(path):
            key = folder.resolve()
            if NAME in files and key not in results:
                try:
                    results[key] = checked(read_result(folder / NAME))
                except UserError as e:
                    problems += e.problems
            elif CONFIG in files and not any(above in results or above in running for above in (key, *key.parents)):
                going = _running(folder)
                running |= {key: going} if going else {}
    if problems:
        raise UserError(problems)
    if not results and not running:
        raise UserError(
            f"no {NAME} under {', '.join(map(str, paths))}; give folders that launch/finetune.py wrote (out=FOLDER)"
        )
    return Found(tuple(results[k] for k in sorted(results)), tuple(running[k] for k in sorted(running)))


def _folders(path: Path) -> list[tuple[Path, set[str]]]:
    """Folders under `path` with their files' names, a folder before those inside it; links are not followed."""
    if path.is_file():
        return [(path.parent, {path.name})]
    out = []
    for folder, inside, files in os.walk(path):
        inside[:] = sorted(n for n in inside if not n.startswith("."))
        out.append((Path(folder), set(files)))
    return out


def _running(folder: Path) -> Running | None:
    """None for a folder that no result is to be expected in: a pre-training run, an exported encoder."""
    try:
        content: Json = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    config = content.get("config", content)
    config = config.get("about", config) if isinstance(config, dict) else config
    if not isinstance(config, dict) or not config.get("task"):
        return None
    newest = max(p.stat().st_mtime for p in folder.iterdir())
    return Running(
        folder, _named(config["task"]), _named(config.get("method", "")), f"{datetime.fromtimestamp(newest):%F %H:%M}"
    )


def _named(value: Json) -> str:
    """A section of the configuration by its name, whether it stands there as one or as a table with a `name`."""
    return str(value.get("name", "")) if isinstance(value, dict) else str(value)

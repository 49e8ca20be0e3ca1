"""One run in a line: what it is, where it stands, what it reached. Nothing is loaded but the ends of its files."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shards.untyped import Json
from trainer.runs.find import CONFIG, METRICS, RESULT, STATUS, WEIGHTS, Folder, folders
from trainer.runs.locks import Locks, locks
from trainer.state import fence
from trainer.state.ended import NAME as ENDED
from trainer.tracking.metrics_file import last_lines, row_of

State = Literal["running", "stopped", "finished", "failed", "waiting", "unreadable"]
FRESH_S = 900
"""A run of another machine that wrote within so many seconds counts as running: its lock is not seen from here."""


@dataclass(frozen=True)
class Reached:
    """A metric: of the test cases with an interval where the run is measured, else of the held-back ones so far."""

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    split: Literal["test", "validation"] = "test"


@dataclass(frozen=True)
class Listed:
    path: Path
    kind: Literal["pretrain", "finetune", "point", ""] = ""
    """`point`: a sweep's point that has not begun, or was refused."""
    state: State = "unreadable"
    why: str = ""
    method: str = ""
    title: str = ""
    task: str = ""
    data: str = ""
    seed: str = ""
    step: int | None = None
    loss: float | None = None
    reached: tuple[Reached, ...] = ()
    wrote: float | None = None
    """When, in seconds since 1970."""
    of_sweep: bool = False
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_all(roots: Sequence[Path]) -> list[Listed]:
    """Every run below `roots`.

    Raises:
        UserError: as `find.folders`.
    """
    held = locks()
    return [read(f, held) for f in folders(roots)]


def read(folder: Folder, held: Locks) -> Listed:
    """A run; of one that cannot be read the reason, whatever is in its files. `held`: what `locks` gives."""
    if folder.problem:
        return Listed(folder.path, why=folder.problem)
    try:
        return _read(folder, held)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        return Listed(folder.path, why=f"damaged: {_said(e)}")


def _said(e: Exception) -> str:
    return f"{e.filename}: {e.strerror}" if isinstance(e, OSError) else f"{type(e).__name__}: {e}"


def _read(folder: Folder, held: Locks) -> Listed:
    path = folder.path
    status = _json(path / STATUS) if STATUS in folder.files else {}
    stored = _json(path / CONFIG) if CONFIG in folder.files else {}
    result = _json(path / RESULT) if RESULT in folder.files else {}
    config = stored.get("config", {})
    finetune = "about" in config or bool(result)
    if not config and not result:
        if not status:
            raise ValueError(f"{' '.join(sorted(folder.files & {METRICS, STATUS}))} without {CONFIG}")
        state, why = _of_point(path, status, held)
        return Listed(path, "point", state, why, of_sweep=True, wrote=(path / STATUS).stat().st_mtime)
    row, validation = _last(folder, finetune)
    state, why = _state(folder, finetune, status, row, held)
    about = config.get("about", {})
    return Listed(
        path, "finetune" if finetune else "pretrain", state, why,
        method=str(result.get("method") or about.get("method") or config.get("method_name") or ""),
        title=str(result.get("title") or about.get("title") or config.get("title") or ""),
        task=str(result.get("task") or (_named(about["task"]) if about else "")),
        data=_data(config), seed=_seeds(config, result),
        step=row.get("step"), loss=row.get("loss"),
        reached=_tested(result) or _validation(validation, finetune),
        wrote=max(os.stat(path / n).st_mtime for n in (CONFIG, METRICS, RESULT, ENDED) if n in folder.files),
        of_sweep=bool(status), config=config, result=result,
    )  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    content: Json = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return content


def _named(value: object) -> str:
    return str(value.get("name", "")) if isinstance(value, dict) else str(value)


def _data(config: Mapping[str, Any]) -> str:
    given = config.get("data", {}).get("path")
    parts = given if isinstance(given, list) else [given or "demo"]
    return " + ".join(str(p.get("path") if isinstance(p, dict) else p) for p in parts)


def _seeds(config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    if result:
        return " ".join(map(str, result["seeds"]))
    task = config.get("about", {}).get("task")
    if isinstance(task, dict):
        return " ".join(map(str, task.get("protocol", {}).get("seeds", ())))
    return str(config.get("seed", ""))


# ------------------------------------------------------------------------------------------------------- how far it came


def _last(folder: Folder, finetune: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last line of its metrics, and the last one with held-back values; of a fine-tune of the training that wrote last."""
    files = [folder.path / METRICS] if METRICS in folder.files else []
    if finetune and RESULT not in folder.files:
        files = [f for n in folder.inside if n.startswith("seed-") for f in folder.path.glob(f"{n}/*/{METRICS}")]
    if not files:
        return {}, {}
    lines = last_lines(max(files, key=lambda f: f.stat().st_mtime))
    looked = next((line for line in reversed(lines) if b'"val/' in line), None)
    return (row_of(lines[-1]) if lines else {}), (row_of(looked) if looked else {})


def _validation(row: Mapping[str, Any], finetune: bool) -> tuple[Reached, ...]:
    """Losses of a pre-training; of a fine-tune its metrics."""
    names = [k for k in row if k.startswith("val/") and k.startswith("val/loss") is not finetune]
    return tuple(Reached(k.removeprefix("val/"), row[k], None, "validation") for k in names)


def _tested(result: Mapping[str, Any]) -> tuple[Reached, ...]:
    """The primary metric first."""
    if not result:
        return ()
    names = [result["primary"], *(n for n in result["metrics"] if n != result["primary"])]
    return tuple(measured(result, n) for n in names)


def measured(result: Mapping[str, Any], name: str) -> Reached:
    entry = result["metrics"][name]
    low, high = entry["interval"] or (None, None)
    return Reached(name, entry["value"], None if low is None or high is None else (low, high))


# ---------------------------------------------------------------------------------------------------------------- its state


def _state(
    folder: Folder, finetune: bool, status: Mapping[str, Any], row: Mapping[str, Any], held: Locks
) -> tuple[State, str]:
    path = folder.path
    if held.on(path / ".lock"):
        return "running", ""
    if (RESULT if finetune else WEIGHTS) in folder.files and (finetune or "method.json" in folder.files):
        return "finished", ""
    if ENDED in folder.files:
        ended = _json(path / ENDED)
        return ended["state"], str(ended["why"])
    life = fence.holder(path)
    if life is not None and life.host != socket.gethostname() and _wrote_within(path, FRESH_S):
        return "running", f"on {life.host}, by what it wrote last"
    if status.get("state") in ("failed", "stopped"):
        return status["state"], f"exit status {status.get('exit')}; {path / 'log.txt'}"
    if row and (path / "checkpoints" / f"step-{row['step']:08d}").is_dir():
        return "stopped", "saved at its last step"
    return "failed", "ended without a word (killed, or a lost node); the same command goes on"


def _of_point(path: Path, status: Mapping[str, Any], held: Locks) -> tuple[State, str]:
    """Of a sweep's point without a configuration: it waits, starts, or was refused."""
    if held.on(path / ".point.lock"):
        return "running", "starting"
    state = status["state"]
    if state in ("failed", "stopped"):
        return state, f"exit status {status.get('exit')}; {path / 'log.txt'}"
    return ("waiting", "") if state == "waiting" else ("failed", "ended without a word before it began")


def _wrote_within(path: Path, seconds: float) -> bool:
    wrote = [f.stat().st_mtime for f in (path / METRICS, path / CONFIG) if f.is_file()]
    return bool(wrote) and time.time() - max(wrote) < seconds

"""Steps of a run that are never trained on: the windows before which it went back to a checkpoint.

    out/left-out.json    {"windows": [{"first", "last", "why", "samples"}]}, steps of the whole run from 1, both ends included

Written before the checkpoints behind a window are removed: a kill between the two leaves checkpoints that do not know of the window
(their progress counts fewer rollbacks), and the next life removes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.errors import TrainingError, UserError
from trainer.health.spikes import RollBack
from trainer.state import files
from trainer.state.checkpoint import Checkpoints

NAME = "left-out.json"


def windows(out: Path) -> list[dict[str, Any]]:
    """The windows of the run in `out`, in the order in which they were left out.

    Raises:
        UserError: a file that is no such list.
    """
    path = out / NAME
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_bytes())["windows"]
        if not all(0 < int(w["first"]) <= int(w["last"]) for w in found):
            raise ValueError("a window must be steps from 1 on, the first not after the last")
        return list(found)
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"{path}: not the list of steps that the run left out ({e}); restore it, or give another out=FOLDER"
        ) from e


def steps(found: list[dict[str, Any]]) -> frozenset[int]:
    return frozenset(s for w in found for s in range(int(w["first"]), int(w["last"]) + 1))


def add(out: Path, checkpoints: Checkpoints, back: RollBack, samples: Callable[[], dict[str, list[str]]]) -> None:
    """Leaves the window of `back` out from now on: on disk first, then the checkpoints behind it go. On rank 0.

    Raises:
        TrainingError: there is no checkpoint before the window.
    """
    if not any(_step(p) < back.first and files.problem(p) is None for p in checkpoints.complete()):
        raise TrainingError(
            f"{back}. There is no complete checkpoint before step {back.first} to go back to: save more often "
            "(checkpoint.every=N) and keep more of them (checkpoint.keep=N), or lower optim.lr"
        )
    window = {"first": back.first, "last": back.last, "why": back.why, "samples": samples()}
    content = {"windows": [*windows(out), window]}
    files.write_atomic(out / NAME, json.dumps(content, indent=1).encode())
    settle(out, checkpoints)


def settle(out: Path, checkpoints: Checkpoints) -> None:
    """Removes checkpoints that were made of steps which are left out now. On rank 0."""
    found = windows(out)
    for path in checkpoints.complete() if found else []:
        known = _rollbacks(path)
        if any(_step(path) >= int(w["first"]) for w in found[known:]):
            files.remove(path)


def _rollbacks(path: Path) -> int:
    """How many windows a checkpoint knows of; a damaged one none, and is removed or skipped as such."""
    try:
        return int(json.loads((path / "state.json").read_bytes())["progress"].get("rollbacks", 0))
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))

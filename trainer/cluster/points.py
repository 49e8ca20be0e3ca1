"""A sweep's own books (trainer/sweep/runner.py) for points that run as elements of a job array: `launch/sweep.py` and
`compare` read them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cluster.record import Record
from trainer.errors import EXIT_OK, EXIT_STOPPED

if TYPE_CHECKING:
    from trainer.sweep.runner import Status


def note(record: Record, code: int | None = None, again: bool = False) -> None:
    """Writes a point's status.json: running at the beginning of a life, else by how the life ended."""
    about = record.about
    if about["command"] != "sweep":
        return
    from trainer.sweep.runner import Status

    point: dict[str, Any] = about["points"][record.element or 0]
    path = record.run / "status.json"
    status = _read(path, Status(point["index"], list(point["words"])))
    now = datetime.now(UTC)
    if code is None:
        status.state, status.started, status.ended, status.exit = (
            "running",
            now.isoformat(timespec="seconds"),
            None,
            None,
        )
        status.attempts += 1
    else:
        status.exit, status.ended = code, now.isoformat(timespec="seconds")
        status.state = "done" if code == EXIT_OK else "stopped" if again or code == EXIT_STOPPED else "failed"
        status.failures += code not in (EXIT_OK, EXIT_STOPPED)
        if status.started:
            status.seconds += round((now - datetime.fromisoformat(status.started)).total_seconds(), 3)
    status.write(record.run)


def _read(path: Path, default: Status) -> Status:
    import json

    return type(default)(**json.loads(path.read_bytes())) if path.exists() else default

"""Which life of a run may write: the last one that took the run's folder.

A job that a cluster starts again may leave an earlier life behind on a node that lost its link: still running, still writing. So a life
writes a token of its own into `out/.fence` when it takes the folder, and reads it back before every durable write. A life that finds
another token has been succeeded: it raises, and leaves the folder alone.

Lives of one Slurm job are ordered by its restart count. A later life takes the folder even from a process that still holds its lock;
an earlier one that arrives late is refused.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.errors import TrainingError

NAME = ".fence"


class Fenced(TrainingError):
    """A later life of the run has taken its folder: this process must not write into it."""


@dataclass(frozen=True)
class Life:
    """One start of a run. `job` is empty outside Slurm; `count` is how often Slurm has restarted the job."""

    job: str
    count: int
    host: str
    pid: int

    @classmethod
    def here(cls, environ: Mapping[str, str] | None = None) -> Life:
        e = os.environ if environ is None else environ
        # Inside `salloc` there is a job but nothing that restarts it: a run started there by hand is like any other.
        step = "SLURM_PROCID" in e
        job = e.get("SLURM_JOB_ID", "") if step else ""
        return cls(job, int(e.get("SLURM_RESTART_COUNT", "0")) if job else 0, socket.gethostname(), os.getpid())

    def succeeds(self, other: Life | None) -> bool:
        """Whether this is a later life of the same job."""
        return other is not None and bool(self.job) and self.job == other.job and self.count > other.count

    @property
    def tag(self) -> str:
        """Tells the temporary files of lives apart: empty outside Slurm."""
        return f"-{self.job}.{self.count}" if self.job else ""

    def __str__(self) -> str:
        job = f"job {self.job}, restart {self.count}, " if self.job else ""
        return f"{job}process {self.pid} on {self.host}"


# Folders that this process may write into, each with its token.
_held: dict[Path, str] = {}


def holder(folder: Path) -> Life | None:
    """Who took the folder last, if anybody."""
    content = _read(folder)
    try:
        return Life(**content["life"]) if content else None
    except (KeyError, TypeError):
        return None


def take(folder: Path, life: Life) -> None:
    """Makes `life` the only one that may write into `folder`.

    Raises:
        Fenced: a later life of the same job is there already.
        OSError: not writable.
    """
    before = holder(folder)
    if before is not None and before.succeeds(life):
        raise Fenced(f"{folder}: {before} has taken over from {life}; nothing was written")
    token = uuid.uuid4().hex
    tmp = folder / f"{NAME}.{token}"
    tmp.write_text(json.dumps({"token": token, "life": asdict(life)}))
    os.replace(tmp, folder / NAME)
    _held[folder.absolute()] = token


def leave(folder: Path) -> None:
    """This process writes no more into `folder`."""
    _held.pop(folder.absolute(), None)


def check(path: Path) -> None:
    """Before a durable write to `path`.

    Raises:
        Fenced: `path` is in a folder that this process took and another has taken since.
    """
    for folder, token in _held.items():
        if path.absolute().is_relative_to(folder):
            content = _read(folder)
            if content is None or content.get("token") != token:
                raise Fenced(f"{folder}: {holder(folder) or 'nobody'} has taken over; this life writes no more")


def _read(folder: Path) -> dict[str, Any] | None:
    # Opened anew each time: that is what makes a network file system ask its server.
    try:
        content = json.loads((folder / NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None

"""What can end a run, with which exit status, and the note that a rank of a Slurm job leaves of it."""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from shards.errors import listing, told
from shards.terminal import is_unread, refused

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_INTERRUPTED = 130  # as the shell counts SIGINT
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped with a checkpoint, the same command goes on

JOB = "MEDPAIR_JOB"
"""Names the variable with the folder of a Slurm job, for its tasks (trainer/cluster/job.py)."""
LONGEST = 2000


class UserError(ValueError):
    """Something the user has to change: every problem is listed, each with its place and its remedy. Exit status 2."""

    def __init__(self, problems: str | Sequence[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        assert self.problems, "a UserError needs at least one problem"
        super().__init__(self.problems)

    def __str__(self) -> str:
        return listing(self.problems)


class TrainingError(RuntimeError):
    """The run cannot go on for a reason inside it (non-finite steps, a save that failed). Exit status 1."""


class Stopped(Exception):
    """A stop was asked for and the run is saved. Exit status 75."""


E = TypeVar("E", bound=Exception)


def everywhere(error: E) -> E:
    """Marks an error that every rank raises at the same place, so that rank 0 says it for all."""
    error.everywhere = True  # type: ignore[attr-defined]
    return error


def exit_status(run: Callable[[], None]) -> int:
    """Runs a command and turns what ends it into its exit status.

    Each rank says what ended it, with its number and node, and writes it down where it is a task of a Slurm job (`write_end`).
    What all ranks were told of by rank 0 (`everywhere`), rank 0 says for all.
    """
    status, said = _ended(run)
    if os.environ.get(JOB):
        write_end(status, said)
    return status


def _ended(run: Callable[[], None]) -> tuple[int, str]:
    try:
        run()
        return EXIT_OK, ""
    except Stopped as e:
        if _rank() == 0:
            print(e, flush=True)
        return EXIT_STOPPED, str(e)
    except KeyboardInterrupt:
        # A status, no exception: the interpreter's own end would tear a thread out of the save that it is writing, and abort.
        print(f"[rank {_rank()} on {_node()}] interrupted: ended at once", file=sys.stderr, flush=True)
        return EXIT_INTERRUPTED, "interrupted"
    except Exception as e:
        if isinstance(e, BrokenPipeError) and is_unread():
            raise  # nobody reads what it prints: `ends_with_its_reader` ends the command
        # Errors of the data and the method are known by their own families, which only exist once those rooms are loaded.
        if isinstance(e, UserError) or hasattr(e, "problems"):
            return _say(e, EXIT_USER)
        if isinstance(e, TrainingError):
            return _say(e, EXIT_BUG)
        if (why := refused(e)) is not None:
            named = TrainingError(why)
            return _say(everywhere(named) if getattr(e, "everywhere", False) else named, EXIT_BUG)
        print(f"[rank {_rank()} on {_node()}]", file=sys.stderr)
        traceback.print_exc()
        return EXIT_BUG, f"{type(e).__name__}: {e}"


def _say(e: Exception, status: int) -> tuple[int, str]:
    where = "" if _rank() == 0 else f"[rank {_rank()} on {_node()}] "
    if _rank() == 0 or not getattr(e, "everywhere", False):
        print(f"{where}error: {told(e)}", file=sys.stderr, flush=True)
    return status, f"error: {told(e)}"


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


# --------------------------------------------------------------------------------------------------- the end of a rank, on file


@dataclass(frozen=True)
class End:
    """How a rank ended: `FOLDER/ends[-I]/RESTART/rank-00000.json`, I the element of a job array; trainer/cluster/ends.py reads it."""

    rank: int
    node: str
    status: int
    reason: str

    def told(self) -> str:
        return f"rank {self.rank} on {self.node}: {' '.join(self.reason.split())}"


def ends_folder(folder: Path, environ: Mapping[str, str]) -> Path:
    element = environ.get("SLURM_ARRAY_TASK_ID")
    name = "ends" if element is None else f"ends-{element}"
    return folder / name / environ.get("SLURM_RESTART_COUNT", "0")


def write_end(status: int, reason: str, environ: Mapping[str, str] = os.environ) -> None:
    """Writes this rank's end down, where it is a task of a job; a disk that is full loses the note, not the status."""
    if JOB not in environ:
        return
    rank = int(environ.get("RANK", "0"))
    end = End(rank, environ.get("SLURMD_NODENAME") or socket.gethostname(), status, reason[:LONGEST])
    folder = ends_folder(Path(environ[JOB]), environ)
    tmp = folder / f".rank-{rank:05d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tmp.write_text(json.dumps(asdict(end)) + "\n")
        os.replace(tmp, folder / f"rank-{rank:05d}.json")
    except OSError as e:
        print(f"[rank {rank}] how it ended could not be written to {folder}: {e}", flush=True)

"""What can end a run, and with which exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from shards.errors import listing, told

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped with a checkpoint, the same command goes on


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


def exit_status(run: Callable[[], None]) -> int:
    """Runs a command and turns what ends it into its exit status; messages come from rank 0 unless only one rank knows."""
    rank = int(os.environ.get("RANK", "0"))
    try:
        run()
        return EXIT_OK
    except Stopped as e:
        if rank == 0:
            print(e, flush=True)
        return EXIT_STOPPED
    except TrainingError as e:
        if rank == 0:
            print(f"error: {e}", file=sys.stderr, flush=True)
        return EXIT_BUG
    except Exception as e:
        # Errors of the data and the method are known by their own families, which only exist once those rooms are loaded.
        if isinstance(e, UserError) or hasattr(e, "problems"):
            where = "" if rank == 0 else f"[rank {rank}] "
            if rank == 0 or not getattr(e, "everywhere", True):
                print(f"{where}error: {told(e)}", file=sys.stderr, flush=True)
            return EXIT_USER
        print(f"[rank {rank}]", file=sys.stderr)
        traceback.print_exc()
        return EXIT_BUG

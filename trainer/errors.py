"""What can end a run, and with which exit status."""

from __future__ import annotations

from collections.abc import Sequence

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped with a checkpoint, the same command goes on


class UserError(ValueError):
    """Something the user has to change: every problem is listed, each with its place and its remedy. Exit status 2."""

    def __init__(self, problems: str | Sequence[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        head = "" if len(self.problems) == 1 else f"{len(self.problems)} problems:\n  "
        super().__init__(head + "\n  ".join(self.problems))


class TrainingError(RuntimeError):
    """The run cannot go on for a reason inside it (non-finite steps, a save that failed). Exit status 1."""


class Stopped(Exception):
    """A stop was asked for and the run is saved. Exit status 75."""

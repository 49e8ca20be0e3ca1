"""What the user is told when data cannot be used: every problem at once, each with its place and its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set: what it is, where it stands, how to mend it."""

    what: str
    where: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Fix: {self.fix}"


class DataError(ValueError):
    """Data that the user has to mend. `problems` holds every one that was found."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        assert self.problems, "a DataError needs at least one problem"
        head = "" if len(self.problems) == 1 else f"{len(self.problems)} problems:\n  "
        super().__init__(head + "\n  ".join(str(p) for p in self.problems))


def bad(what: str, where: object, fix: str) -> DataError:
    """A DataError with a single problem."""
    return DataError(Problem(what, str(where), fix))

"""What the user is told when data cannot be used: every problem at once, each with its place and its remedy.

Problems are grouped by kind: alike but for names and numbers in what is wrong, with the same remedy. Of a kind with many, three are
shown and the rest counted, so that a wrong folder of 10,000 files is a line to read and not 10,000; `--all` lists every one.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 3  # of each kind
# What differs between problems of one kind: what stands in quotation marks, and words with a digit or a slash (keys, files, numbers).
_QUOTED = re.compile(r"(?<!\w)(?P<mark>['\"`]).*?(?P=mark)(?!\w)")
_VARYING = re.compile(r"[^\s,;:()\[\]=]*[0-9/][^\s,;:()\[\]=]*")
_WORD = re.compile(r"\w+")
_every = False


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set: what it is, where it stands, how to mend it."""

    what: str
    where: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Fix: {self.fix}"


class DataError(ValueError):
    """Data that the user has to mend. `problems` holds every one that was found; as text they are grouped (`listing`)."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        if isinstance(problems, str):
            # PyTorch tries so with what a worker process raised, and raises the text as a RuntimeError where it cannot.
            raise TypeError("problems are of the class Problem")
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        assert self.problems, "a DataError needs at least one problem"
        super().__init__(self.problems)

    def __str__(self) -> str:
        return listing(self.problems)


class BrokenSeal(DataError):
    """A data set, or a shard of it, is not what dataset.json was sealed with (any more).

    Unlike a bad sample nothing can stand in for it: what else is read from there may be another patient's.
    """


def bad(what: str, where: object, fix: str) -> DataError:
    """A DataError with a single problem."""
    return DataError(Problem(what, str(where), fix))


# ------------------------------------------------------------------------------------------------------------- as text


def kind_of(problem: Problem | str) -> tuple[str, str]:
    """Equal for problems of one kind: the text without what is particular to each."""
    what, fix = (problem.what, problem.fix) if isinstance(problem, Problem) else (problem, "")
    names = {m[0][1:-1] for m in _QUOTED.finditer(what)}
    return _shape(what, names), _shape(fix, names)


def _shape(text: str, names: Collection[str]) -> str:
    """A text without its names: those in quotation marks, wherever they stand again, and words that look like one."""
    text = _QUOTED.sub("#", text)
    for name in names:
        if len(name) > 2:
            text = text.replace(name, "#")
    return _VARYING.sub("#", _WORD.sub(lambda m: "#" if m[0] in names else m[0], text))


def grouped(problems: Iterable[Problem | str]) -> list[list[Problem | str]]:
    """Problems by kind, in the order in which a kind was first met; equal ones count once."""
    kinds: dict[tuple[str, str], list[Problem | str]] = {}
    for problem in dict.fromkeys(problems):
        kinds.setdefault(kind_of(problem), []).append(problem)
    return list(kinds.values())


def lines_of(problems: Iterable[Problem | str]) -> list[str]:
    """A line a problem; of a kind with more than `SHOWN`, the first and one line with their number and further examples."""
    return _lines(grouped(problems))


def _lines(groups: Iterable[Sequence[Problem | str]]) -> list[str]:
    lines = []
    for group in groups:
        if _every or len(group) <= SHOWN:
            lines += [str(p) for p in group]
        else:
            others = "; ".join(_example(p, group[0]) for p in group[1:SHOWN])
            lines += [str(group[0]), f"  {len(group)} of this kind, also {others}"]
    return lines


def _example(problem: Problem | str, first: Problem | str) -> str:
    if not isinstance(problem, Problem):
        return problem
    alike = isinstance(first, Problem) and problem.what == first.what
    return problem.where if alike else f"{problem.where}: {problem.what}"


def listing(problems: Sequence[Problem | str]) -> str:
    """Problems as an error's text: one as it stands, several below a line that counts them."""
    groups = grouped(problems)
    lines, count = _lines(groups), sum(map(len, groups))
    if len(lines) == 1:
        return lines[0]
    short = not _every and any(len(g) > SHOWN for g in groups)
    kinds = f" of {len(groups)} kind{'s' * (len(groups) > 1)} (--all lists every one)" if short else ""
    return "\n  ".join([f"{count} problems{kinds}:", *lines])


def typed(text: object) -> str:
    """A path, a name or a value as a shell takes it, for commands and options that messages give: quoted where it has blanks."""
    return shlex.quote(str(text))


def told(error: BaseException) -> str:
    """An error as its user is to read it: the problems that it lists by kind, or its own text."""
    problems = getattr(error, "problems", None)
    return listing(problems) if problems else str(error)


class _Every(argparse.Action):
    def __call__(self, *_: Any) -> None:
        show_every(True)


def show_every(every: bool) -> None:
    """Whether every problem is listed from now on, in this process."""
    global _every
    _every = every


def add_all(parser: argparse.ArgumentParser) -> None:
    """Gives a command line `--all`, which holds for the whole process and is no part of what the command is told to do."""
    what = "list every problem, not three of each kind"
    parser.add_argument("--all", action=_Every, nargs=0, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, help=what)

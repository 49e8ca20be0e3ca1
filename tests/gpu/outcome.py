"""What a check says, and what the report makes of all of them."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch

from tests.gpu.process import ended

State = Literal["pass", "FAIL", "not run"]
PACKAGES = ("torch", "deepspeed", "triton", "xformers", "mamba-ssm", "causal-conv1d", "numba", "medpair")


@dataclass(frozen=True)
class Found:
    """What a case found."""

    state: State
    said: str


@dataclass(frozen=True)
class Outcome:
    check: str
    state: State
    said: str
    seconds: float = 0.0


class NotRun(Exception):
    """What a case needs is not here; its text says what."""


Case = Callable[[], Found]
"""Looks at one thing, whatever became of the others; what it raises is what it found."""
Check = Callable[[], dict[str, Case]]
"""Its cases by name, without a look at the device."""


def tried(name: str, case: Case) -> tuple[Outcome, bool]:
    """What a case found, and whether its process is as good as before: not where something was raised that it did not foresee."""
    began = time.perf_counter()
    try:
        found, sound = case(), True
    except NotRun as why:
        found, sound = Found("not run", str(why)), True
    except Exception as e:
        found, sound = Found("FAIL", f"{type(e).__name__}: {e}"), False
    return Outcome(name, found.state, found.said, time.perf_counter() - began), sound


def outcomes(
    checks: dict[str, Check],
    left: Callable[[], float],
    apart: Callable[[str, list[str]], Iterator[Outcome]],
    own: Collection[str],
) -> Iterator[Outcome]:
    """Of every case of every check, in their order, one after another; those that time does not allow are named.

    Args:
        left: seconds that are left for all that has not begun.
        apart: runs cases of a check in processes of their own.
        own: checks whose cases start their processes themselves.
    """
    for check, listed in checks.items():
        waiting = dict(listed())
        found = (
            (tried(n, c)[0] for n, c in [*waiting.items()] if left() > 0) if check in own else apart(check, [*waiting])
        )
        for o in found if left() > 0 else ():
            del waiting[o.check]
            yield replace(o, check=f"{check}: {o.check}")
        yield from (Outcome(f"{check}: {name}", "not run", "no time was left") for name in waiting)


def within(found: float, bound: float, what: str) -> Found:
    """Whether an error is a number and no larger than its bound."""
    return Found("pass" if found <= bound else "FAIL", f"{what} {found:.1e}, at most {bound:.0e}")


@cache
def device_name() -> str:
    """Asked in a process of its own: one that has used a card keeps others out where the card is set to serve one at a time."""
    return ended([sys.executable, "-c", "from tests.gpu.outcome import cards; print(cards())"])[0].strip() or "unknown"


def cards() -> str:
    if not torch.cuda.is_available():
        return f"no GPU, {platform.machine()}"
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{c.name} ({c.total_memory / 1e9:.0f} GB)" for c in found)


def lacking() -> str:
    """Why nothing here is of a GPU; nothing where there is one."""
    if torch.cuda.is_available():
        return ""
    why = "no card answers its driver" if torch.version.cuda else "it is a build without CUDA"
    return (
        f"No GPU was found (torch {torch.__version__}: {why}): what passed did so on a CPU and says nothing of a GPU."
    )


def report(found: Iterable[Outcome], seconds: float) -> str:
    """As Markdown: the device, the versions, a line an outcome."""
    rows = list(found)
    counts = {state: sum(o.state == state for o in rows) for state in ("pass", "FAIL", "not run")}
    lines = [
        "# GPU check",
        "",
        f"{device_name()}; CUDA {torch.version.cuda or 'none'}; Python {platform.python_version()}; {_versions()}.",
        "",
        f"{counts['pass']} passed, {counts['FAIL']} failed, {counts['not run']} not run; {seconds:.0f} s.",
        "",
        *([lacking(), ""] if lacking() else []),
        "| check | | | s |",
        "|---|---|---|---|",
        *(f"| {o.check} | {o.state} | {_cell(o.said)} | {o.seconds:.1f} |" for o in rows),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _versions() -> str:
    return ", ".join(f"{p} {_version(p)}" for p in PACKAGES)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

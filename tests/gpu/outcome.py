"""What a check says, and what the report makes of all of them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch

State = Literal["pass", "FAIL", "not run"]
PACKAGES = ("torch", "deepspeed", "triton", "xformers", "mamba-ssm", "causal-conv1d", "numba", "medpair")


@dataclass(frozen=True)
class Outcome:
    check: str
    state: State
    said: str
    seconds: float = 0.0


class NotRun(Exception):
    """What a check needs is not here; its text says what."""


Check = Callable[[], Iterator[Outcome]]
"""Yields an outcome a thing that it looks at; what it raises becomes one."""


def outcomes(checks: dict[str, Check], left: Callable[[], float]) -> Iterator[Outcome]:
    """Of every check, in their order, one after another; those that time does not allow are named.

    Args:
        left: seconds that are left for all that has not begun.
    """
    for name, check in checks.items():
        if left() <= 0:
            yield Outcome(name, "not run", "no time was left")
            continue
        began = time.perf_counter()
        try:
            for o in check():
                now = time.perf_counter()
                yield Outcome(f"{name}: {o.check}", o.state, o.said, now - began)
                began = now
        except NotRun as why:
            yield Outcome(name, "not run", str(why))
        except Exception as e:  # a check that breaks has failed, and the others still run
            yield Outcome(name, "FAIL", f"{type(e).__name__}: {e}", time.perf_counter() - began)


def within(check: str, found: float, bound: float, what: str) -> Outcome:
    """Whether an error is a number and no larger than its bound."""
    return Outcome(check, "pass" if found <= bound else "FAIL", f"{what} {found:.1e}, at most {bound:.0e}")


def device_name() -> str:
    if not torch.cuda.is_available():
        return f"no GPU, {platform.machine()}"
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{c.name} ({c.total_memory / 1e9:.0f} GB)" for c in cards)


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

"""A bar that says how many samples are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def ticking(total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    """What to call with the number of samples that are done; drawn where the error output is a terminal, or in a notebook."""
    console = Console(stderr=True)
    columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, disable=not (shown and (console.is_terminal or console.is_jupyter))
    ) as bar:
        task = bar.add_task("encoding", total=total)
        yield lambda n: bar.advance(task, n)

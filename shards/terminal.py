"""What a command says while it works, and its end where the system ends it: its reader has gone (`... | head`), or a disk refuses."""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, ParamSpec

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

P = ParamSpec("P")
UNREAD = 128 + signal.SIGPIPE
"""Exit status of a command that nobody reads any more, as the shell counts it for its own tools."""


DISK = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space in your quota",
    errno.EROFS: "the file system is read-only: write to another place",
    errno.EACCES: "give the user the right to write there, or write to another place",
    errno.EPERM: "give the user the right to write there, or write to another place",
    errno.EFBIG: "the file is larger than may be written there (ulimit -f): raise the limit",
    errno.EIO: "the disk failed: write to another one",
}
"""What to do where the system refuses a file."""


def refused(e: BaseException) -> str | None:
    """What the system said of a file that it refused, with a remedy; None for any other error."""
    if not isinstance(e, OSError) or e.errno not in DISK:
        return None
    return f"{e.filename or 'a file'}: cannot be read or written ({e.strerror}); {DISK[e.errno]}"


def is_unread() -> bool:
    """Whether standard output is a pipe without a reader."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # closed, or no file
        return False


def ends_with_its_reader(main: Callable[P, int]) -> Callable[P, int]:
    """`main` without a traceback where standard output was closed by its reader (its status is then `UNREAD`), or where the system
    refused a file that nobody has told of (1)."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            try:
                return main(*args, **kwargs)
            finally:  # `--help` leaves by SystemExit
                sys.stdout.flush()
        except BrokenPipeError:
            if not is_unread():
                raise
            # What is still in the buffer would raise again when the interpreter ends.
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, sys.stdout.fileno())
            os.close(sink)
            return UNREAD
        except OSError as e:
            if (why := refused(e)) is None:
                raise
            print(f"error: {why}", file=sys.stderr)
            return 1

    return run


def leave(main: Callable[[], int]) -> NoReturn:
    """Runs `main` and ends the process with its status, without waiting for threads of libraries: a rank that has saved must not
    outlive its run."""
    status = ends_with_its_reader(main)()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Progress:
    """How far a long command is, with its rate and the time that is left, on standard error: a bar on a terminal; elsewhere (a log) a
    line a minute, so that a short command says nothing. A context manager.

    Args:
        done: what is done, such as "packed". total, unit: of how many, and what they are. begin: what was done before.
    """

    EVERY_S = 60.0

    def __init__(self, done: str, total: int, unit: str, begin: int = 0):
        self.words, self.total, self.unit, self.begin = done, total, unit, begin
        self._start = self._said = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(self.words, total=self.total, completed=self.begin, unit=self.unit, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if text and self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif text:
            print(text, file=sys.stderr, flush=True)

    def reached(self, count: int) -> None:
        """So many are done."""
        now = time.monotonic()
        rate = (count - self.begin) / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=count, rate=f"{rate:,.0f}/s")
        elif now - self._said >= self.EVERY_S:
            self._said = now
            left = (self.total - count) / max(rate, 1e-9)
            said = f"{self.words} {count:,} of {self.total:,} {self.unit}, {rate:,.0f}/s, {_clock(left)} left"
            print(said, file=sys.stderr, flush=True)


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}")]
    more = [TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("left")]
    return Bar(*columns, *more, console=Console(stderr=True), transient=True)


def _clock(seconds: float) -> str:
    """2:05 or 3:02:05"""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"

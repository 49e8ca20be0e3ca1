"""The end of a command whose reader has gone: `... | head` closes the pipe, and that is no error of the command."""

from __future__ import annotations

import functools
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")
UNREAD = 128 + signal.SIGPIPE
"""Exit status of a command that nobody reads any more, as the shell counts it for its own tools."""


def is_unread() -> bool:
    """Whether standard output is a pipe without a reader."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # closed, or no file
        return False


def ends_with_its_reader(main: Callable[P, int]) -> Callable[P, int]:
    """`main` without a traceback where standard output was closed by its reader; its status is then `UNREAD`."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            status = main(*args, **kwargs)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            if not is_unread():
                raise
            # What is still in the buffer would raise again when the interpreter ends.
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, sys.stdout.fileno())
            os.close(sink)
            return UNREAD

    return run

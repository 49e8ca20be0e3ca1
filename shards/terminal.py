"""The end of a command that the system ends: its reader has gone (`... | head`), or a disk refuses what it writes."""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

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

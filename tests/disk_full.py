"""A process whose files cannot grow beyond a few bytes: what it writes is refused by the system itself, as on a full disk."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable


def with_no_room(action: Callable[[], object], limit: int = 64) -> str:
    """Runs `action` in a forked process with RLIMIT_FSIZE; returns what it printed to standard error and output."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.dup2(write, 1)
        os.dup2(write, 2)
        sys.stdout = sys.stderr = os.fdopen(write, "w", buffering=1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the system ends the process instead of refusing the write
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            action()
            os.write(1, b"\ndone")
        except BaseException as e:
            os.write(1, f"\nraised {type(e).__name__}: {e}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        said = f.read().decode()
    os.waitpid(pid, 0)
    return said

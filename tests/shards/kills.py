"""Kills a command in a forked process just before its n-th step that changes the disk."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

WRITES = {
    "os.rename",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.truncate",
}
DONE, FAILED = 0, 3


def run_until(command: Callable[[], object], step: int) -> bool:
    """Runs `command` in a child that kills itself at step `step` (from 0); True where it had as many steps."""
    pid = os.fork()
    if pid == 0:
        _child(command, step)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or os.WEXITSTATUS(status) == DONE, f"the command failed on its own (status {status})"
    return killed


def _child(command: Callable[[], object], step: int) -> None:
    left = step

    def at(event: str, args: tuple) -> None:
        nonlocal left
        opens = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in WRITES or opens:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    real = {name: getattr(os, name) for name in ("fsync",)}

    def fsync(fd: int) -> None:
        at("os.truncate", ())  # no audit event of its own: what was written may or may not be there
        real["fsync"](fd)

    os.fsync = fsync
    from shards.format import staging

    exchange = staging.exchange

    def counted(*names: object) -> bool:
        at("os.rename", ())
        return exchange(*names)  # type: ignore[arg-type]

    staging.exchange = counted
    try:
        sys.addaudithook(at)
        command()
        os._exit(DONE)
    except BaseException as e:
        os.write(2, f"{e!r}\n".encode())
        os._exit(FAILED)

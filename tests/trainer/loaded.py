"""Sweeps in a process that has loaded everything: what forks their points has it then, too, instead of loading it once more.

It runs `serve` of trainer/sweep/preloaded.py as ever, in a session of its own, with no more open files, signal handlers and environment
than `subprocess` leaves a new process. That it can be started as a program of its own is for tests that do not ask for this.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn


class Fork:
    """What is used of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], *, pass_fds: Sequence[int], env: Mapping[str, str], **how: Any):
        assert how.pop("start_new_session")
        assert how == dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL), how
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _serve(command[2:], pass_fds, env)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            ends = os.pidfd_open(self.pid)
            try:
                if not select.select([ends], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("serve", timeout or 0)
            finally:
                os.close(ends)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def _serve(words: Sequence[str], pass_fds: Sequence[int], env: Mapping[str, str]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
            if fd > 2 and fd not in pass_fds:
                try:
                    os.close(fd)
                except OSError:  # the one that listed them
                    continue
        os.environ.clear()
        os.environ.update(env)
        from trainer.sweep import preloaded

        preloaded.serve(socket.socket(fileno=int(words[0])))
        status = 0
    finally:
        os._exit(status)


def fork_the_forking_one() -> None:
    from trainer.sweep import preloaded

    preloaded.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=Fork, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )

"""Commands beside each other: `python tests/beside.py COMMAND -- COMMAND ...`; `make test` runs the Slurm tests so, which mostly wait.

The first one writes as it goes; what each of the others says is told in one piece when the first has ended. The exit status is the first
that is not 0, in the order of the commands; each failure is told. An interrupt or TERM is passed on to all of them, and all are waited for.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tempfile
from typing import IO


def split(words: list[str]) -> list[list[str]]:
    """The commands between `--`.

    Raises:
        ValueError: one of them is empty.
    """
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            commands.append([])
        else:
            commands[-1].append(word)
    if not all(commands):
        raise ValueError("a command is empty")
    return commands


def beside(commands: list[list[str]]) -> list[int]:
    """Exit statuses of all commands, in their order (128 + N where signal N ended one)."""
    said: list[IO[bytes] | None] = [None, *(tempfile.TemporaryFile() for _ in commands[1:])]  # noqa: SIM115
    begun: list[subprocess.Popen[bytes]] = []
    told: list[int] = []

    def pass_on(number: int, _: object) -> None:
        told.append(number)
        for p in begun:
            if p.poll() is None:
                p.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for command, out in zip(commands, said, strict=True):
            # A session of its own: the terminal's interrupt reaches each once, through this process.
            begun.append(
                subprocess.Popen(command, stdout=out, stderr=out and subprocess.STDOUT, start_new_session=True)
            )
            if told:  # before this one was there
                begun[-1].send_signal(told[-1])
        for p, out in zip(begun, said, strict=True):
            p.wait()
            if out is not None:
                out.seek(0)
                print(f"\n--- {shlex.join(p.args)}", flush=True)  # type: ignore[arg-type]
                sys.stdout.buffer.write(out.read())
                sys.stdout.flush()
    finally:
        # Where one could not be started, or this process failed.
        for p in begun:
            if p.poll() is None:
                p.terminate()
                p.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    return [p.returncode if p.returncode >= 0 else 128 - p.returncode for p in begun]


def main(words: list[str]) -> int:
    commands = split(words)
    statuses = beside(commands)
    for command, status in zip(commands, statuses, strict=True):
        if status:
            print(f"exit status {status}: {shlex.join(command)}", flush=True)
    return next((s for s in statuses if s), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

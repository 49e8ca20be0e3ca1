"""What every task of a job runs: it derives its rank, then becomes the program that the same command would start by hand."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import EXIT_STOPPED, JOB

# Held back until the program has its own handlers (trainer/runtime.StopFlag), or a signal during start-up would kill it.
HELD = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


@dataclass(frozen=True)
class Task:
    """Picklable, by reference to this module: submitit carries it to every task.

    The process is replaced, so nothing of submitit stays in it: its USR2 handler saves and requeues on rank 0 alone, inside the
    handler, where a joint checkpoint would deadlock. Its result pickles are not written either; `life` keeps the books.
    """

    command: tuple[str, ...]
    """A Python script and its arguments."""
    folder: str

    def __call__(self) -> None:
        from trainer.rendezvous import rendezvous

        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        for number in HELD:
            signal.signal(number, signal.SIG_DFL)
        if (Path(self.folder) / "cancel").exists():
            # Asked for before there was a task to signal. Without a word to submitit, which would write a result.
            os._exit(EXIT_STOPPED)
        found = rendezvous(os.environ)
        os.environ.update(found | {JOB: self.folder})
        print(header(found), flush=True)
        os.execv(sys.executable, [sys.executable, "-u", *self.command])


def header(found: dict[str, str]) -> str:
    """First line of a task's life in its log; `logs` reads rank and node from it."""
    node, restart = os.environ.get("SLURMD_NODENAME", "?"), os.environ.get("SLURM_RESTART_COUNT", "0")
    where = f"{found['MASTER_ADDR']}:{found['MASTER_PORT']}"
    return f"=== rank {found['RANK']} of {found['WORLD_SIZE']} on {node}, restart {restart}, master {where}"

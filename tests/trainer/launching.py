"""Starts real ranks for tests: free ports, one thread a rank, one process group, a time limit, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Small enough that a start costs more than its training.
TINY = [
    "--method", "gimp", "method.dim=16", "method.heads=2", "method.window=24", "method.landmarks=8", "method.genes.groups=4",
    "method.dropout=0.0", "global_batch=8", "epochs=null", "stages.gene.epochs=0", "optim.lr=1e-3", "log.tensorboard=false",
    "data.val_split=''",
]  # fmt: skip


@dataclass
class Ended:
    """How a launch ended: exit status and output of every rank."""

    codes: list[int]
    outputs: list[str]

    @property
    def text(self) -> str:
        return "\n".join(
            f"--- rank {r}: exit {c}\n{o[-4000:]}"
            for r, (c, o) in enumerate(zip(self.codes, self.outputs, strict=True))
        )


def launch(
    world: int, words: list[str], cache: Path, faults: dict[str, Any] | None = None, limit: float = 240
) -> Ended:
    """Runs `pretrain.py WORDS` on `world` ranks, forked by forking.py, with faults planted by driver.py, and waits for all of them."""
    from tests.trainer.forking import Forks

    return Forks(cache).launch(world, words, faults, limit)


def run_ranks(world: int, command: list[str], cache: Path, limit: float = 240) -> Ended:
    """Runs a Python command on `world` ranks and waits for all of them."""
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MEDPAIR_CACHE": str(cache.parent),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
    }
    ranks: list[subprocess.Popen[str]] = []
    try:
        for r in range(world):
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-W", "ignore", *command],
                    env={**env, "RANK": str(r), "LOCAL_RANK": str(r)},
                    cwd=ROOT,
                    text=True,
                    process_group=ranks[0].pid if ranks else 0,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
        outputs = [p.communicate(timeout=limit)[0] for p in ranks]
        return Ended([p.returncode for p in ranks], outputs)
    finally:
        for p in ranks:
            if p.poll() is None:
                p.send_signal(signal.SIGKILL)
                p.wait()


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def series(out: Path, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[n] for n in names) for row in rows(out)]

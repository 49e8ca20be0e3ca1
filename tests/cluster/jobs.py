"""A login node for tests: submits with launch/slurm.py, waits for events, reads what runs left."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch import slurm
from tests.cluster.slurm_cluster import Cluster, until
from trainer.cluster.record import Record, newest
from trainer.tracking import read_metrics

# Small enough that a start costs more than its training; steps enough to be interrupted in.
TINY = [
    "--method", "gimp", "method.dim=16", "method.heads=2", "method.window=24", "method.landmarks=8", "method.groups=4",
    "method.dropout=0.1", "global_batch=8", "epochs=null", "stages.gene.epochs=0", "optim.lr=1e-3", "log.tensorboard=false",
    "data.val_split=''", "data.workers=2",
]  # fmt: skip
WHAT = ("step", "loss", "loss/rec", "loss/triplet", "grad_norm", "lr", "keys")


class Desk:
    """Commands of launch/slurm.py in this process, as a user of the cluster gives them."""

    def __init__(self, cluster: Cluster, cache: Path):
        self.cluster = cluster
        extra = {
            "OMP_NUM_THREADS": "1",
            "MEDPAIR_CACHE": str(cache.parent),
            "DS_ACCELERATOR": "cpu",
            "PYTHONWARNINGS": "ignore",
        }
        self.env = {**cluster.env, **extra}
        self.cache = cache

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.env)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def run(self, *words: Any) -> tuple[int, str]:
        """Exit status and output of `launch/slurm.py WORDS`."""
        out, err = io.StringIO(), io.StringIO()
        with self.environment(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = slurm.main([str(w) for w in words])
        return code, out.getvalue() + err.getvalue()

    def submit(self, *words: Any) -> Record:
        code, said = self.run(*words)
        assert code == 0, said
        run = next(str(w).removeprefix("out=") for w in words if str(w).startswith("out="))
        return newest(Path(run))[0]

    def ended(self, record: Record, limit: float = 240) -> str:
        """The state in which the job ended, once it has."""
        final = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"}

        def look() -> str:
            state = self.cluster.state(record.job)
            return state if state in final else ""

        try:
            return until(f"job {record.job} ends", look, limit, 0.3)
        except TimeoutError as e:
            raise TimeoutError(f"{e}\n{self.cluster.job(record.job)}\n{self.log(record)}") from None

    def reached(self, record: Record, step: int, limit: float = 120) -> None:
        """Waits until the run has logged that step."""
        until(f"step {step} of {record.run}", lambda: last_step(record.run) >= step, limit, 0.05)

    def log(self, record: Record) -> str:
        files = sorted(record.folder.glob("*_log.out"))
        return "\n".join(f"--- {f.name}\n{f.read_text()[-3000:]}" for f in files)


def last_step(run: Path) -> int:
    path = run / "metrics.jsonl"
    if not path.exists():
        return 0
    lines = path.read_text().split("\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0


def series(run: Path, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[n] for n in names) for row in read_metrics(run)]

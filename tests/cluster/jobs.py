"""A login node for tests: submits with launch/slurm.py, waits for events, holds runs still, reads what they left."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

from launch import slurm
from tests.cluster.slurm_cluster import Cluster, kill, until
from trainer.cluster.record import Record, newest
from trainer.tracking.metrics_file import read_metrics

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent.parent
# Small enough that a start costs more than its training; steps enough to be interrupted in.
TINY = [
    "--method", "gimp", "method.dim=16", "method.heads=2", "method.window=24", "method.landmarks=8", "method.genes.groups=4",
    "method.dropout=0.1", "global_batch=8", "epochs=null", "stages.gene.epochs=0", "optim.lr=1e-3", "log.tensorboard=false",
    "data.val_split=''", "data.workers=2",
]  # fmt: skip
# A run is interrupted soon after step AT: behind a checkpoint, well before the next one and before the end, in its first of two epochs.
STEPS, EVERY, AT = 60, 20, 22
RUN = ["pretrain", *TINY, f"steps={STEPS}", f"checkpoint.every={EVERY}"]
WHAT = ("step", "loss", "loss/rec", "loss/triplet", "grad_norm", "lr", "keys")
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"}
# Waiting has no cost but for a test that fails: room for a machine that does other things.
# With 27 processes at work on two cores a training of two ranks took 370 s and its launcher another 60.
LIMIT = 700
ASKED = 10
"""Looks at a job's own books for each question to Slurm, which starts a process and keeps the controller busy."""


class Desk:
    """Commands of launch/slurm.py as a user of the cluster gives them: in this process, or in the login node's namespace."""

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
        self.lock = threading.Lock()
        """Environment and output belong to the whole process."""

    @contextlib.contextmanager
    def environment(self, **more: str) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.env | more)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def run(self, *words: Any, **environ: str) -> tuple[int, str]:
        """Exit status and output of `launch/slurm.py WORDS`."""
        said = [str(w) for w in words]
        if self.cluster.links:
            command = self.cluster.on("ctl", [sys.executable, "launch/slurm.py", *said])
            done = subprocess.run(
                command, env=self.env | environ, cwd=ROOT, text=True, capture_output=True, timeout=120
            )
            return done.returncode, done.stdout + done.stderr
        out, err = io.StringIO(), io.StringIO()
        with self.lock, self.environment(**environ), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = slurm.main(said)
        return code, out.getvalue() + err.getvalue()

    def submit(self, *words: Any) -> Record:
        """Submits a run with an `out=` or a sweep with an `--out`."""
        said = [str(w) for w in words]
        code, text = self.run(*said)
        assert code == 0, text
        out = [w.removeprefix("out=") for w in said if w.startswith("out=")] or [said[said.index("--out") + 1]]
        return newest(Path(out[0]))[0]

    def wait(self, what: str, record: Record, probe: Callable[[], T], every: float) -> T:
        """`until`, with what the job said when it is not."""
        try:
            return until(f"{what} of job {record.job}", probe, LIMIT, every)
        except TimeoutError as e:
            raise TimeoutError(f"{e}\n{self.cluster.job(record.job)}\n{self.log(record)}") from None

    def ended(self, record: Record) -> str:
        """The state in which the job ended, once it has. Its own books say when it is time to ask; a job that Slurm ended has none."""
        looks = itertools.count()

        def look() -> str:
            if record.status.state not in ("done", "failed", "cancelled") and next(looks) % ASKED:
                return ""
            state = self.cluster.state(record.job)
            return state if state in FINAL else ""

        return self.wait("the end", record, look, 0.5)

    def reached(self, record: Record, step: int, part: str = "") -> int:
        """Waits until the run (or that folder of it) has logged that step; returns the step it is at."""
        return self.wait(f"step {step}", record, lambda: at_least(record.run / part, step), 0.02)

    @contextlib.contextmanager
    def held(
        self, record: Record, step: int = AT, world: int = 2, part: str = ""
    ) -> Iterator[dict[int, psutil.Process]]:
        """All ranks of a run, stopped by SIGSTOP soon after that step (of that part), so that what is done to it comes in mid-run."""
        ranks: dict[int, psutil.Process] = {}

        def here() -> bool:
            ranks.update(self.cluster.tasks(record.job))
            return sorted(ranks) == list(range(world))

        # All processes of the machine are looked through only once the ranks are sure to be there, or those of an earlier life were.
        self.wait("the first step", record, lambda: at_least(record.run / part, 1), 0.1)
        self.wait(f"{world} ranks", record, here, 0.3)
        self.reached(record, step, part=part)
        for p in ranks.values():
            kill(p, signal.SIGSTOP)
        try:
            yield ranks
        finally:
            for p in ranks.values():
                kill(p, signal.SIGCONT)

    def log(self, record: Record) -> str:
        files = sorted(record.folder.glob("*_log.out"))
        return "\n".join(f"--- {f.name}\n{f.read_text()[-3000:]}" for f in files)


def pending(p: psutil.Process, *numbers: signal.Signals) -> bool:
    """Whether one of these signals waits for a process that is held still; true as well once it has gone."""
    try:
        text = Path(f"/proc/{p.pid}/status").read_text()
    except OSError:
        return True
    masks = [int(m, 16) for m in re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)$", text, re.M)]
    return any(mask >> (n - 1) & 1 for mask in masks for n in numbers) or not p.is_running()


def told(ranks: dict[int, psutil.Process]) -> None:
    """A signal to stop has come to every rank of a run that is held still."""
    until("signals", lambda: all(pending(p, signal.SIGUSR2, signal.SIGTERM) for p in ranks.values()), 120)


def at_least(run: Path, step: int) -> int:
    """The last step that was logged, if it is that far; else 0."""
    now = last_step(run)
    return now if now >= step else 0


def last_step(run: Path) -> int:
    path = run / "metrics.jsonl"
    if not path.exists():
        return 0
    lines = path.read_text().split("\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0


def series(run: Path, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[n] for n in names) for row in read_metrics(run)]


def begun(record: Record) -> int:
    """How many lives a job has begun."""
    return sum(e["event"] == "begin" for e in record.lives)


def went_on_from(record: Record) -> list[int]:
    """The steps that later lives went on from, as they say."""
    return [int(n) for n in re.findall(r"going on from \S+ \(step (\d+)\)", main_log(record))]


def saved_when_stopped(record: Record) -> list[int]:
    """The steps at which a life saved because it was told to stop: going on from there costs nothing."""
    return [int(n) for n in re.findall(r"saved in \S+/step-(\d+)\.", main_log(record))]


def main_log(record: Record) -> str:
    """Output of rank 0 over all lives."""
    return (record.folder / f"{record.job}_0_log.out").read_text()

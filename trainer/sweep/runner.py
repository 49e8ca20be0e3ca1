"""Runs the points of a sweep as processes on this machine: some at a time, each in its own folder, until all are done.

They are forked from one process that has loaded everything (trainer/sweep/preloaded.py), or started anew where that does not fit.

OUT/NAME/status.json    state, exit, started, ended, attempts, failures, words
OUT/NAME/log.txt        what all its attempts printed
OUT/NAME/.point.lock    held by the run's own process, so that nobody starts it twice: not by a second sweep, nor after a sweep
                        was killed and its runs live on
and what the run itself writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from trainer.errors import EXIT_BUG, EXIT_OK, EXIT_STOPPED, EXIT_USER, UserError
from trainer.state.files import write_atomic
from trainer.sweep.points import Point, Sweep
from trainer.sweep.preloaded import Forked, Preloaded, environment
from trainer.sweep.rows import STUDY
from trainer.tracking.intervals import interval_text

State = Literal["waiting", "running", "done", "failed", "stopped"]
MOST_LINES = 8  # of a log, in what the sweep says of a failure
LOOK_EVERY = 0.1  # seconds between looks at the processes
KILLS = (-signal.SIGKILL, 128 + signal.SIGKILL)
KILLED = ", killed (SIGKILL): the system does so where memory is out; give fewer --jobs, or a smaller batch"
ENDED_BY_US = (EXIT_STOPPED, -signal.SIGTERM, 128 + signal.SIGTERM)


@dataclass
class Status:
    """status.json. `attempts` counts starts, `failures` those that ended by themselves with neither 0 nor 75."""

    index: int
    words: list[str]
    state: State = "waiting"
    exit: int | None = None
    started: str | None = None
    ended: str | None = None
    seconds: float = 0.0
    attempts: int = 0
    failures: int = 0

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "status.json", json.dumps(asdict(self), indent=1).encode())


def read_status(sweep: Sweep, point: Point) -> Status:
    """A point's status; `waiting` where it never ran.

    Raises:
        UserError: a folder that this sweep did not make, or one of a run with other words.
    """
    folder = sweep.folder(point)
    path = folder / "status.json"
    if not path.is_file():
        if folder.exists() and any(p.name not in (".point.lock", "log.txt") for p in folder.iterdir()):
            raise UserError(f"{folder} holds something that no sweep made; move it, or give another --out")
        return Status(point.index, list(point.words))
    try:
        status = Status(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as e:
        raise UserError(f"{path}: damaged ({e}); remove it to run this point again") from e
    if status.words != list(point.words):
        raise UserError(
            f"{folder} was run as `{' '.join(status.words)}`, now it would be `{' '.join(point.words)}`; give another --out"
        )
    status.index = point.index
    return status


def statuses(sweep: Sweep, points: Iterable[Point]) -> list[Status]:
    """Raises: UserError: every folder that is not this sweep's, at once."""
    found, problems = [], []
    for point in points:
        try:
            found.append(read_status(sweep, point))
        except UserError as e:
            problems += e.problems
    if problems:
        raise UserError(problems)
    return found


# --------------------------------------------------------------------------------------------------------------- processes


@dataclass
class _Job:
    point: Point
    status: Status
    process: subprocess.Popen[bytes] | Forked
    lock: int
    began: float


class Runner:
    """Runs points with `jobs` processes at a time. `say` prints a line; `forking` is the process that points are forked from.

    A point that is done is not run again, one that stopped goes on, one that failed is tried `retries` times more (over all
    starts of the sweep; a refused input, status 2, once a start).
    """

    def __init__(
        self, sweep: Sweep, jobs: int, retries: int, say: Callable[[str], None], forking: Preloaded | None = None
    ):
        self.sweep, self.jobs, self.retries, self.say, self.forking = sweep, jobs, retries, say, forking
        self.running: list[_Job] = []
        self.stopping = False

    def stop(self, *_: Any) -> None:
        """Asks all runs to save and end; safe in a signal handler, and as often as one likes."""
        self.stopping = True
        for job in self.running:
            _terminate(job)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGTERM, SIGINT and SIGUSR2 stop the sweep while this is entered."""
        before = {s: signal.signal(s, self.stop) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, points: Sequence[Point]) -> int:
        """Runs these points: 0 all are done, 75 stopped (the same command goes on), 1 some failed.

        Raises:
            UserError: folders that are not this sweep's.
        """
        for point, status in zip(points, statuses(self.sweep, points), strict=True):
            if status.attempts == 0:
                self._prepare(point, status)
        pending, waited = list(points), False
        with self.signals():
            while self.running or (pending and not self.stopping):
                if not self.stopping:
                    self._start(pending)
                if pending and not self.running and not self.stopping and not waited:
                    self.say(f"{pending[0].name}: still running from an earlier start of this sweep; waiting for it")
                    waited = True
                time.sleep(LOOK_EVERY)
                self._collect(pending)
        return self.verdict(points)

    def verdict(self, points: Sequence[Point]) -> int:
        states = {s.state for s in statuses(self.sweep, points)}
        if states & {"waiting", "running", "stopped"}:
            return EXIT_STOPPED
        return EXIT_BUG if "failed" in states else EXIT_OK

    def _prepare(self, point: Point, status: Status) -> None:
        try:
            status.write(self.sweep.folder(point))
        except OSError as e:
            raise UserError(f"{self.sweep.folder(point)}: cannot be written ({e.strerror}); give another --out") from e

    def _start(self, pending: list[Point]) -> None:
        """Starts points while there is room; points that others hold stay, points with nothing to do go."""
        for point in list(pending):
            if len(self.running) >= self.jobs:
                return
            lock = _lock(self.sweep.folder(point))
            if lock is None:
                continue
            status = read_status(self.sweep, point)
            pending.remove(point)
            if status.state == "done" or (status.state == "failed" and status.failures > self.retries):
                os.close(lock)
                told = (
                    "done already"
                    if status.state == "done"
                    else f"failed {status.failures} times; --retries {status.failures} tries it again"
                )
                self.say(f"{point.name}: {told}")
                continue
            self._launch(point, status, lock)

    def _launch(self, point: Point, status: Status, lock: int) -> None:
        folder = self.sweep.folder(point)
        status.state, status.started, status.ended, status.exit = "running", _now(), None, None
        status.attempts += 1
        status.write(folder)
        with open(folder / "log.txt", "ab") as log:
            process = self._process(point, log.fileno(), lock)
        self.running.append(_Job(point, status, process, lock, time.monotonic()))
        self.say(f"{point.name}: {'goes on' if status.attempts > 1 else 'started'} ({folder / 'log.txt'})")
        if self.stopping:  # the signal came while it was being started
            _terminate(self.running[-1])

    def _process(self, point: Point, log: int, lock: int) -> subprocess.Popen[bytes] | Forked:
        """The point's process, which holds its lock."""
        line = self.sweep.command_line(point)
        if self.forking is not None:
            try:
                return self.forking.start(_module(line[1]), line[2:], log, lock)
            except OSError as e:
                self.forking = None
                self.say(f"each point loads everything itself from here on: {e}")
        return subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment(self.jobs), pass_fds=(lock,),
            start_new_session=True,  # a signal to the sweep reaches its runs through `stop` alone, once
        )  # fmt: skip

    def _collect(self, pending: list[Point]) -> None:
        """Takes note of runs that ended; what is worth another try is put back."""
        for job in [j for j in self.running if j.process.poll() is not None]:
            self.running.remove(job)
            code, status = job.process.returncode, job.status
            assert code is not None
            status.exit, status.ended = code, _now()
            status.seconds += round(time.monotonic() - job.began, 3)
            status.state = _state(code, self.stopping)
            status.failures += status.state == "failed"
            again = status.state == "failed" and code != EXIT_USER and status.failures <= self.retries
            status.write(self.sweep.folder(job.point))
            os.close(job.lock)
            if again and not self.stopping:
                pending.append(job.point)
            told = status.state if code in (0, EXIT_STOPPED) else f"{status.state}, status {code}"
            why = (KILLED * (code in KILLS) + last_words(self.sweep.folder(job.point))) * (status.state == "failed")
            self.say(f"{job.point.name}: {told} after {status.seconds:.0f} s{'; tried again' * again}{why}")


def last_words(folder: Path) -> str:
    """What the log of a run that failed ends with: its errors, or else its last line."""
    lines = [line for line in (folder / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
    at = max((i for i, line in enumerate(lines) if line.startswith("error: ")), default=len(lines) - 1)
    return "".join(f"\n    {line}" for line in lines[at:][:MOST_LINES] if line)


def _terminate(job: _Job) -> None:
    # No poll here: in a signal handler it could take an answer that the interrupted code is about to read.
    if job.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGTERM)


def _state(code: int, stopping: bool) -> State:
    if code == EXIT_OK:
        return "done"
    return "stopped" if code == EXIT_STOPPED or (stopping and code in ENDED_BY_US) else "failed"


def _module(script: str) -> str:
    """The module that a script of a checkout is: folder.name."""
    return f"{Path(script).parent.name}.{Path(script).stem}"


def _lock(folder: Path) -> int | None:
    """A point's lock, or None while another process holds it."""
    fd = os.open(folder / ".point.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ----------------------------------------------------------------------------------------------------------------- summary


def table(sweep: Sweep, points: Sequence[Point]) -> str:
    """One line a point: where it stands, and what it reached."""
    found = statuses(sweep, points)
    width = max(len(p.name) for p in points)
    lines = [f"{'':>4}  {'point':<{width}}  {'state':<8}{'exit':>5}{'tries':>6}{'seconds':>9}  reached"]
    for point, s in zip(points, found, strict=True):
        code = "-" if s.exit is None else s.exit
        lines.append(
            f"{point.index:>4}  {point.name:<{width}}  {s.state:<8}{code:>5}{s.attempts:>6}{s.seconds:>9.0f}  "
            f"{reached(sweep.folder(point))}".rstrip()
        )
    counts = {
        state: sum(s.state == state for s in found) for state in ("done", "failed", "stopped", "running", "waiting")
    }
    return "\n".join([*lines, ", ".join(f"{n} {state}" for state, n in counts.items() if n)])


def reached(folder: Path) -> str:
    """The primary metric of a fine-tune with its interval, the clumps of a study, or the last losses of a pre-training."""
    from trainer.tracking.metrics_file import read_metrics

    if (folder / STUDY).is_file():
        return f"clumps {json.loads((folder / STUDY).read_bytes())['clumps']}"
    if (folder / "result.json").is_file():
        result = json.loads((folder / "result.json").read_bytes())
        metric = result["metrics"][result["primary"]]
        span = interval_text(metric)
        return f"{result['primary']} {_number(metric['value'])}" + f" ({span})" * (span != "-")
    rows = read_metrics(folder)
    losses = {k: v for row in rows[-1:] for k, v in row.items() if k == "loss" or k.startswith("val/loss/")}
    return ", ".join([f"step {rows[-1]['step']}", *(f"{k} {_number(v)}" for k, v in losses.items())]) if rows else ""


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"

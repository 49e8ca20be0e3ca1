"""Ends a run that hangs, naming the rank that the others wait for. It uses no collective: those are what hangs.

Each rank has two threads of its own besides its work. One writes where the rank stands into a small file
(trainer/health/hang.py). The other looks at the clock alone, so that a dead file system does not stop it: when a step
takes longer than

    max(health.hang_floor, health.hang_factor x the median step)

it compares the ranks' files, dumps the stacks of all ranks, and leaves with the status of a crash, whatever the main thread is in;
launcher or cluster then end the others, stopped processes among them. Waiting for data, start-up and the first steps, evaluation, saving,
finishing and compiling (`compile=auto`) are not steps: they may take `health.hang_pause`, on whichever rank they happen.

Before that, after `health.notice` seconds (and five median steps), a line says who or what is waited for: a rank that waits for data
names the threads and samples that are read, rank 0 the rank that is behind the others, or that it compiles. Nothing ends by it.

Not seen: a run on one rank whose code holds the interpreter lock for ever, and what happens before the ranks have met.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from shards.load.micro_batch import slow_readers
from trainer.config.shared import Health
from trainer.errors import EXIT_BUG, UserError
from trainer.health import hang
from trainer.health.hang import COMPILE, PAUSES

QUIET = tuple(p for p in PAUSES if p not in ("data", COMPILE))  # may take long, and are said when they begin or end
SLOW = 5  # median steps
FIRST_STEPS = 3  # kernels are chosen, buffers made
KEPT = 101


class Clock:
    """How long this rank has been at what it does, and how long that may take."""

    def __init__(self, health: Health, now: Callable[[], float] = time.monotonic):
        self.health, self._now = health, now
        self.step, self.phase, self.since = 0, "start", now()
        self._spent = 0.0  # in the ordinary phases of this step
        self._compiled = 0.0  # of this step, up to the compiling that goes on
        self._within = self.phase  # the phase that compiling interrupts
        self._done = 0  # steps since the last start
        self._steps: deque[float] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def at(self, phase: str, step: int) -> None:
        now = self._now()
        with self._lock:
            ordinary = self.phase not in PAUSES
            if phase in PAUSES and ordinary:
                self._spent += now - self.since
            if self.phase == COMPILE:
                self._compiled += now - self.since
            if phase == "start":
                self._done, self._spent = 0, 0.0
            if step != self.step:
                if self._spent and self._done >= FIRST_STEPS:
                    self._steps.append(self._spent)
                self._done += bool(self._spent)
                self._spent = self._compiled = 0.0
            if phase in PAUSES or not ordinary:
                self.since = now
            self.step, self.phase = step, phase

    def compiling(self, begins: bool) -> None:
        """Code is compiled in the middle of a phase, which goes on when that is over."""
        if begins:
            self._within = self.phase
        self.at(COMPILE if begins else self._within, self.step)

    def forgive(self, seconds: float) -> None:
        """The process did not run for so long (it was suspended): that is nobody's fault."""
        with self._lock:
            self.since += seconds

    def place(self) -> tuple[int, str, float]:
        """Step, phase, seconds in it."""
        with self._lock:
            ordinary = 0.0 if self.phase in PAUSES else self._spent
            spent = self._compiled if self.phase == COMPILE else ordinary
            return self.step, self.phase, spent + self._now() - self.since

    @property
    def median(self) -> float:
        with self._lock:
            return statistics.median(self._steps) if self._steps else 0.0

    def limit(self) -> float:
        """Seconds that what this rank does now may take."""
        h = self.health
        if self.phase in PAUSES or self._done < FIRST_STEPS:
            return max(h.hang_pause, h.hang_floor)
        return max(h.hang_floor, h.hang_factor * self.median)

    def slow(self) -> tuple[int, str] | None:
        """Step and phase that take longer than `health.notice` allows, if they do."""
        step, phase, seconds = self.place()
        limit = self.health.notice if phase in PAUSES else max(self.health.notice, SLOW * self.median)
        return (step, phase) if phase not in QUIET and seconds > limit else None

    def why(self) -> str:
        h, (step, phase, seconds) = self.health, self.place()
        if self.phase in PAUSES or self._done < FIRST_STEPS:
            rule = f"health.hang_pause={h.hang_pause:g}"
        else:
            median = f"health.hang_factor={h.hang_factor:g} x the median step of {self.median:.3g} s"
            rule = f"the larger of health.hang_floor={h.hang_floor:g} and {median}"
        return f"no progress for {seconds:.0f} s at step {step}, {phase}; the limit is {self.limit():.0f} s ({rule})"


class Watchdog:
    """Of one rank. `token` names the life of the run, equal on all ranks; rank 0 has made the folder (`prepare`)."""

    def __init__(self, out: Path, rank: int, world: int, health: Health, token: str):
        self.out, self.rank, self.world = out, rank, world
        self.clock = Clock(health)
        self.at: Callable[[str, int], None] = self.clock.at if health.hang_factor else off
        self.compiling = self.clock.compiling
        self.folder = out / f".beats-{token}"
        self.tick = min(10.0, health.hang_floor / 20, health.notice / 3)
        self.grace = max(10.0, 6 * self.tick)
        self._over, self._alarm, self._pulse = threading.Event(), threading.Event(), 0
        self._next = 0.0
        self._told: tuple[int, str] | None = None
        if health.hang_factor:
            for name, work in (("watchdog pulse", self._beats), ("watchdog", self._watch)):
                threading.Thread(target=work, name=name, daemon=True).start()

    @staticmethod
    def prepare(out: Path, health: Health) -> str:
        """Makes the folder of beats and removes those of earlier lives; on rank 0. Returns the token.

        Raises:
            UserError: it cannot be made.
        """
        for old in out.glob(".beats-*"):
            shutil.rmtree(old, ignore_errors=True)
        token = uuid.uuid4().hex[:12]
        if health.hang_factor:
            try:
                (out / f".beats-{token}").mkdir()
            except OSError as e:
                raise UserError(
                    f"out={out}: cannot be written ({e.strerror}); free space or give another out=FOLDER"
                ) from e
        return token

    def close(self) -> None:
        self._over.set()
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------------ threads

    def _beat(self) -> hang.Beat:
        step, phase, seconds = self.clock.place()
        where = (hang.node_name(), socket.gethostname(), os.getpid())
        return hang.Beat(self.rank, *where, step, phase, seconds, hang.entered(), self._pulse)

    def _beats(self) -> None:
        begun = False
        while True:
            try:
                hang.write_beat(self.folder, self._beat(), new=not begun)
                begun = True
                if (self.folder / "alarm.json").exists():
                    self._alarm.set()
            except FileNotFoundError:
                if begun:
                    return  # ended, or succeeded by another life
            except OSError:
                pass  # a full disk is no hang
            self._pulse += 1
            if self._over.wait(self.tick):
                return

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._over.wait(self.tick):
            now = time.monotonic()
            if now - last > 5 + 5 * self.tick:
                self.clock.forgive(now - last)
            last = now
            slow = self.clock.slow()
            if slow is not None and slow != self._told:
                self._told = slow
                # In a thread of its own: the file system may be what is slow.
                threading.Thread(target=self._notice, args=slow, name="watchdog notice", daemon=True).start()
            if self._alarm.is_set() or (self._late() and now > self._next):
                self._examine()
                self._next = (
                    now + self.clock.health.hang_floor / 2
                )  # not every tick for as long as a rank waits for data

    def _late(self) -> bool:
        return self.clock.place()[2] > self.clock.limit()

    def _notice(self, step: int, phase: str) -> None:
        """Says who or what a slow step waits for, where this rank knows it."""
        seconds = self.clock.place()[2]
        here = f"rank {self.rank} on {hang.node_name()}"
        if phase == "data":
            readers = slow_readers(self.clock.health.notice / 2)
            what = (
                "; ".join(readers)
                or "no reader thread is at a sample, so it is the order or the cache that it waits for"
            )
            say(f"slow: {here} has waited for data for {seconds:.0f} s at step {step}: {what}\n")
        elif phase == COMPILE and self.rank == 0:
            say(
                f"slow: {here} has compiled blocks of the network for {seconds:.0f} s at step {step}; a step that meets something new "
                "waits for its compiler\n"
            )
        elif self.rank == 0:
            beats = hang.read_beats(self.folder, self.world)
            last = hang.hindmost(beats) if beats else None
            alike = last is None or (
                last.phase not in PAUSES
                and all((b.step, b.collectives) == (last.step, last.collectives) for b in beats.values())
            )
            who = "all ranks stand at the same place" if alike or last is None else f"the others wait for {last.told()}"
            say(
                f"slow: {phase} of step {step} has taken {seconds:.0f} s, the median step is {self.clock.median:.3g} s; {who}\n"
            )

    # ---------------------------------------------------------------------------------------------------------- a hang

    def _examine(self) -> None:
        """Ends the process, unless a rank turns out to be at something that may take long."""
        text: list[str] = []
        go_on = threading.Event()

        def look() -> None:
            try:
                self._look(text, go_on)
            except OSError as e:
                text.append(f"hang: {self.clock.why()}\n{self.folder}: {e}\n{hang.stacks()}")

        # In a thread of its own: the file system may be what hangs.
        thread = threading.Thread(target=look, name="watchdog look", daemon=True)
        thread.start()
        thread.join(5 * self.grace)
        if go_on.is_set():
            return
        say("".join(text) or f"hang: {self.clock.why()}\n{self.out}: does not answer\n{hang.stacks()}")
        os._exit(EXIT_BUG)

    def _look(self, text: list[str], go_on: threading.Event) -> None:
        if self.rank and not self._alarm.is_set():
            self._over.wait(3 * self.tick)  # rank 0 looks first: else all would read all files
        if self._over.is_set() or (self._raised() is None and not self._hangs()):
            go_on.set()
            return
        if not self.folder.is_dir():
            text.append(f"hang: {self.clock.why()}; the run has ended, or another life has {self.out}\n{hang.stacks()}")
            return
        alarm = self._raised() or self._raise()
        folder = self.out / "hang" / alarm["name"]
        folder.mkdir(parents=True, exist_ok=True)
        where = hang.waits_in()
        stacks = f"waits in {where}\n{hang.stacks()}" if where else hang.stacks()
        put(hang.path_of(folder, self.rank, "txt"), stacks)
        if alarm["rank"] == self.rank:
            text.append(self._report(folder, alarm["why"]))
            put(folder / "report.txt", text[0])
            return
        text.append(f"rank {self.rank} on {hang.node_name()} ends: a hang, see {folder / 'report.txt'}\n{stacks}")
        # Its end makes the launcher end the others: not before the report is written.
        self._until(lambda: (folder / "report.txt").exists(), 3 * self.grace)

    def _hangs(self) -> bool:
        """Whether nothing excuses this rank's lateness: another one that is at something that may take long."""
        before = hang.read_beats(self.folder, self.world)
        self._over.wait(max(3.0, 6 * self.tick))
        beats = hang.read_beats(self.folder, self.world)
        if not beats:
            return self._late()
        last = hang.hindmost(beats)
        runs = last.rank == self.rank or last.rank not in before or before[last.rank].pulse != last.pulse
        return self._late() and not (last.phase in PAUSES and runs and last.seconds <= self.clock.health.hang_pause)

    def _report(self, folder: Path, why: str) -> str:
        def dumped() -> dict[int, str]:
            paths = {r: hang.path_of(folder, r, "txt") for r in range(self.world)}
            return {r: p.read_text() for r, p in paths.items() if p.exists()}

        self._until(lambda: len(dumped()) == self.world, self.grace)
        dumps, beats = dumped(), hang.read_beats(self.folder, self.world)
        silent = [r for r in beats if r not in dumps]
        return hang.report(why, beats, silent, dumps, folder, self.world)

    def _until(self, done: Callable[[], bool], limit: float) -> None:
        ends = time.monotonic() + limit
        while not done() and time.monotonic() < ends:
            time.sleep(self.tick / 2)

    def _raised(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / "alarm.json").read_bytes())
        except FileNotFoundError:
            return None

    def _raise(self) -> dict[str, Any]:
        """The alarm, of whichever rank is first."""
        step = self.clock.place()[0]
        name = f"step-{step:08d}-{datetime.now():%Y%m%d-%H%M%S}"
        mine = self.folder / f"alarm-{self.rank}"
        put(mine, json.dumps({"rank": self.rank, "name": name, "why": self.clock.why()}))
        try:
            os.link(mine, self.folder / "alarm.json")
        except FileExistsError:
            pass
        except OSError:  # no links here: the last of those who raise it at once counts
            os.replace(mine, self.folder / "alarm.json")
        raised = self._raised()
        assert raised is not None
        return raised


def off(phase: str, step: int) -> None:
    """Where nothing watches."""


def put(path: Path, text: str) -> None:
    """Whole or not there."""
    tmp = path.with_name(f".{path.name}.tmp")
    tmp.write_text(text)
    os.replace(tmp, path)


def say(text: str) -> None:
    """Past all buffers, whose locks the main thread may hold."""
    os.write(2, text.encode())

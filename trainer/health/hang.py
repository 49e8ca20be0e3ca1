"""What is known of a hang: where every rank stands, who is missing, what each of its threads does.

    out/.beats-TOKEN/rank-00000.json   where a rank stands, rewritten every tick while the run lasts; alarm.json: end it
    out/hang/step-.../report.txt       who is missing and where all stand; rank-00000.txt: the stacks of a rank. They stay

The folder of beats belongs to one life of a run. The next life removes it, so an orphan finds no place to write.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

RECORD = 1024
COLLECTIVES = ("torch/distributed/", "deepspeed/comm/")

COMPILE = "compile"
PAUSES = ("start", "data", COMPILE, "evaluate", "show", "save", "finish")
"""Phases that may take long."""
WRITERS = "checkpoint writers"
"""What the process group of the ranks' writers is called (trainer/state/writer.py): its collectives are no steps of training."""


@dataclass(frozen=True)
class Beat:
    """Where a rank stands. `pulse` grows while its process runs; `collectives` counts what it has entered (None: not known)."""

    rank: int
    node: str
    host: str
    pid: int
    step: int
    phase: str
    seconds: float
    """In this phase, or in the ordinary part of this step."""
    collectives: int | None
    pulse: int

    def told(self, silent: bool = False) -> str:
        """Who, and where it stands, or stood when it was last heard of."""
        place = f"{self.phase} of step {self.step}"
        place = f"last heard of at {place}" if silent else f"{place}, {self.seconds:.0f} s"
        return f"rank {self.rank} on {self.node} (process {self.pid}): {place}"


def node_name() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def path_of(folder: Path, rank: int, suffix: str = "json") -> Path:
    return folder / f"rank-{rank:05d}.{suffix}"


def write_beat(folder: Path, beat: Beat, new: bool = False) -> None:
    """Over the last one, in place: no directory changes on a shared file system, and closing it sends it there.

    Raises:
        FileNotFoundError: the folder has gone; the run has ended or another life has it.
    """
    text = json.dumps(asdict(beat)).encode()
    fd = os.open(path_of(folder, beat.rank), os.O_WRONLY | (os.O_CREAT if new else 0), 0o644)
    try:
        os.pwrite(fd, text.ljust(RECORD), 0)
    finally:
        os.close(fd)


def read_beats(folder: Path, world: int) -> dict[int, Beat]:
    """Of every rank that has written one."""
    found = {}
    for rank in range(world):
        for _ in range(3):  # it may be read while it is written
            try:
                found[rank] = Beat(**json.loads(path_of(folder, rank).read_bytes()))
                break
            except FileNotFoundError:
                break
            except (ValueError, TypeError):
                continue
    return found


def entered() -> int | None:
    """How many collectives this rank has entered, over all groups of training."""
    from torch.distributed import distributed_c10d as c10d

    try:
        groups: list[Any] = [g for g in c10d._world.pg_map if g.group_desc != WRITERS]
        return sum(group._get_sequence_number_for_group() for group in groups)
    except (RuntimeError, AttributeError):
        return None  # a backend that does not count


# -------------------------------------------------------------------------------------------------------------- stacks


def waits_in() -> str | None:
    """The collective that a thread of this process is in, by the innermost frames of its stack."""
    for frame in _frames().values():
        at: FrameType | None = frame
        while at is not None and any(part in at.f_code.co_filename for part in COLLECTIVES):
            if at.f_code.co_name not in ("wrapper", "log_wrapper"):
                return at.f_code.co_name
            at = at.f_back
    return None


def stacks() -> str:
    """Of all Python threads of this process, the main thread first."""
    names = {t.ident: t.name for t in threading.enumerate()}
    parts = []
    for ident, frame in _frames().items():
        parts.append(f"--- thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)


def _frames() -> dict[int, FrameType]:
    """Without the watchdog's own threads."""
    main = threading.main_thread().ident
    own = {t.ident for t in threading.enumerate() if t.name.startswith("watchdog")}
    found = {k: v for k, v in sys._current_frames().items() if k not in own}
    return dict(sorted(found.items(), key=lambda item: item[0] != main))


# -------------------------------------------------------------------------------------------------------------- verdict


def hindmost(beats: Mapping[int, Beat]) -> Beat:
    """The rank that has come least far; of several, one that is at something that may take long."""
    return min(beats.values(), key=lambda b: (b.step, b.collectives or 0, b.phase not in PAUSES))


def missing(
    beats: Mapping[int, Beat], silent: Sequence[int], waiting: Mapping[int, str | None]
) -> tuple[list[int], str]:
    """The ranks that the others wait for, and how that is known.

    In this order: ranks whose process does not run; those that are behind, by steps and by collectives entered; those that are in no
    collective while others are. All alike means that none is: then it is the network, or a device.
    """
    if silent:
        return list(silent), "its process does not answer"
    places = {r: (b.step, b.collectives or 0) for r, b in beats.items()}
    last = min(places.values())
    behind = [r for r, p in places.items() if p == last]
    if len(behind) < len(places) or len(places) == 1:
        return behind, "it is behind the others" if len(places) > 1 else "it is alone"
    outside = [r for r in beats if not waiting.get(r)]
    if 0 < len(outside) < len(beats):
        return outside, "it is in no collective, the others are"
    return [], "all ranks stand at the same place: suspect the network or a device"


def report(
    why: str, beats: Mapping[int, Beat], silent: Sequence[int], dumps: Mapping[int, str], folder: Path, world: int
) -> str:
    """For people: who is missing, where all stand, the main thread of the missing ranks."""
    waiting = {
        r: text.split("\n", 1)[0].removeprefix("waits in ") for r, text in dumps.items() if text.startswith("waits in ")
    }
    who, how = missing(beats, silent, waiting)
    lines = [f"hang: {why}"]
    lines += [f"missing: {beats[r].told(r in silent)}: {how}{_state(beats[r])}" for r in who]
    never = [r for r in range(world) if r not in beats]
    lines += [f"missing: rank {r}: never heard of in this life" for r in never]
    lines += [] if who or never else [f"missing: nobody: {how}"]
    for rank in range(world):
        beat = beats.get(rank)
        at = f", waits in {waiting[rank]}" if rank in waiting else ""
        count = f", {beat.collectives} collectives entered" if beat and beat.collectives is not None else ""
        lines += [f"  {beat.told(rank in silent)}{count}{at}"] if beat else []
    for rank in who:
        stack = dumps.get(rank, "no stack: the process does not run\n")
        lines.append(f"stacks of rank {rank} on {beats[rank].node}:\n{stack}")
    lines.append(f"stacks of all ranks: {folder}; the run ends, to be started again from its last checkpoint")
    return "\n".join(lines) + "\n"


def _state(beat: Beat) -> str:
    """What the system says of a process on this machine."""
    if beat.host != socket.gethostname():
        return ""
    try:
        with open(f"/proc/{beat.pid}/status") as f:
            state = next(line.split(":", 1)[1].strip() for line in f if line.startswith("State:"))
    except (OSError, StopIteration):
        return "; it is gone"
    return f"; the system says {state}"

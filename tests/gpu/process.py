"""Processes of the check: each is given a time, and nothing of it is left on the card afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 150.0
"""Seconds of a process."""
GRACE = 30.0
"""Seconds that what has begun may go on after the time for beginning is over."""
ends = float("inf")
"""When all has to be over, by `time.perf_counter`."""


def until(seconds: float) -> None:
    """Nothing runs for longer than so many seconds from now, and a little."""
    global ends
    ends = time.perf_counter() + seconds + GRACE


def over() -> bool:
    return time.perf_counter() >= ends


def ended(command: Sequence[str], longest: float | None = None) -> tuple[str, str]:
    """What a command printed, and how it ended: "" where well, else its status or its time-out and the end of what it said of it.

    At its time-out it is ended with all that it started: ranks of a launcher would keep the card.
    """
    seconds = max(1.0, min(longest or LONGEST, ends - time.perf_counter()))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as begun:
        try:
            out, err = begun.communicate(timeout=seconds)
            why = f"ended with {begun.returncode}" if begun.returncode else ""
        except subprocess.TimeoutExpired:
            os.killpg(begun.pid, signal.SIGKILL)
            out, err = begun.communicate()
            why = f"took longer than {seconds:.0f} s"
    return out, f"{why}: {(out + err)[-400:].strip()}" if why else ""

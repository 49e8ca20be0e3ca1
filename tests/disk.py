"""Whether bytes outlive a loss of power is what no test can see, and the disk takes longer over it than the command that waits."""

from __future__ import annotations

import os
from typing import Any


def fsync(fd: Any) -> None:
    """Refuses a descriptor that is none, as the real one does; kills count the call as a step (tests/shards/kills.py)."""
    os.fstat(fd if isinstance(fd, int) else fd.fileno())


def no_waiting() -> None:
    """From here on `os.fsync` of this process, and of all that it forks, returns at once."""
    os.fsync = fsync

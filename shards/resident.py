"""How much memory this process has held at most."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_resident() -> int:
    """Bytes that were resident at most since this program began.

    Linux' `ru_maxrss` is no less than what the process that started this one held when it did so: a small program begun by a large
    one would have that one's peak.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

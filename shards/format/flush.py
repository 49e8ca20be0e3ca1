"""Bytes on their way to a disk: all of some parts in one call, and a disk that begins before it is waited for."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from typing import BinaryIO

SYNC_FILE_RANGE_WRITE = 2
MOST = 512
"""Parts of one call (Linux takes 1,024)."""
Part = bytes | memoryview


def write_all(f: BinaryIO, parts: Sequence[Part]) -> None:
    """Writes parts one after the other to a file that is opened without a buffer.

    Raises:
        OSError: as `write` does; some may have been written.
    """
    for first in range(0, len(parts), MOST):
        some = parts[first : first + MOST]
        written = os.writev(f.fileno(), some)
        for part in some:  # the system takes less where a disk is full, or of 2 GiB and more
            left = memoryview(part)[min(written, len(part)) :]
            written -= len(part) - len(left)
            while left:
                left = left[os.write(f.fileno(), left) :]


@functools.lru_cache
def _sync_file_range() -> Callable[..., int] | None:
    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return found


def begin_flush(fd: int, begin: int, size: int) -> None:
    """Asks the system to begin with writing a part of a file to the disk. Whether it does is seen by `fsync` alone, which stays needed."""
    if (ask := _sync_file_range()) is not None:
        ask(fd, begin, size, SYNC_FILE_RANGE_WRITE)

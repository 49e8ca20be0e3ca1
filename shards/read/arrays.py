"""Batch arrays used again: fresh memory for every batch costs the kernel a page at a time, and grows the process by fragments."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict

import numpy as np

# Small arrays are cheap to make.
WORTH_KEEPING = 1 << 20


def _holders(arrays: list[np.ndarray], i: int) -> int:
    return sys.getrefcount(arrays[i])


# References to an array that only its list holds, as this interpreter counts them.
_FREE = _holders([np.empty(1)], 0)


class ArrayPool:
    """Hands out uninitialised arrays, and again those that nobody holds any more (neither a view nor a tensor of them).

    Args:
        keep: arrays kept for each shape and dtype; beyond that they come and go as usual.
    """

    def __init__(self, keep: int):
        self._keep = keep
        self._lock = threading.Lock()
        self._kept: dict[tuple[tuple[int, ...], np.dtype], list[np.ndarray]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if np.prod(shape, dtype=np.int64) * dtype.itemsize < WORTH_KEEPING:
            return np.empty(shape, dtype)
        with self._lock:
            arrays = self._kept[shape, dtype]
            for i in range(len(arrays)):
                if _holders(arrays, i) == _FREE:
                    return arrays[i]
            array = np.empty(shape, dtype)
            if len(arrays) < self._keep:
                arrays.append(array)
            return array

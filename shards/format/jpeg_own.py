"""When grey films are decoded by machine code of medpair's own (jpeg_grey.py) in place of the library: the same pixels, sooner.

It is loaded once a process has read so many bytes of them that it is worth it; before, where numba is missing or does not work, and
for every file of which it is not sure, the library decodes. No result depends on which of them did.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

from shards.format.jpeg_codes import why_not

if TYPE_CHECKING:
    import numpy as np

    from shards.format.jpeg_grey import Box

WORTH = 32 << 20
"""Bytes of grey JPEGs, some 0.3 s of decoding, from which on it is loaded (0.6 s with numba, compiled by an earlier process)."""
_MODULE = "shards.format.jpeg_grey"


@functools.lru_cache
def why_not_own() -> str:
    """Why films are decoded by the library alone here; empty where they are not."""
    return why_not(_MODULE)


class Own:
    """Decodes once it is worth it; one object for all threads of a process."""

    def __init__(self, worth: int = WORTH):
        self._left, self._lock, self._loaded = worth, threading.Lock(), False

    def decode(
        self, data: bytes, divisor: int, box: Box | None, home: np.ndarray | None = None
    ) -> tuple[np.ndarray, int, int] | None:
        """`jpeg_grey.decode`; None where the library has to be asked."""
        if not self._loaded and not self._load(len(data)):
            return None
        from shards.format import jpeg_grey

        return jpeg_grey.decode(data, divisor, box, home)

    def _load(self, size: int) -> bool:
        """Whether it is loaded now; while one thread does that, which may take a while, the others go on with the library."""
        self._left -= size
        if self._left > 0 or not self._lock.acquire(blocking=False):
            return False
        try:
            self._loaded = not why_not_own()
        finally:
            self._lock.release()
        return self._loaded


own = Own()

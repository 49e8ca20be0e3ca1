"""When views of one channel are enlarged by machine code of medpair's own (bicubic.py) in place of Pillow: the same pixels, sooner.

It is loaded once a process has made so many pixels that it is worth it; before, where numba is missing or does not work, and for every
view that does not get more rows, Pillow filters. No result depends on which of them did.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading

import numpy as np

WORTH = 1 << 26
"""Pixels of views, some 0.3 s of filtering, from which on it is loaded (0.5 s with numba, compiled by an earlier process)."""
_MODULE = "models.transforms.bicubic"
Box = tuple[float, float, float, float]


@functools.lru_cache
def why_not_own() -> str:
    """Why Pillow alone filters here; empty where it does not."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install -e '.[numba]', docs/install.md)"
    try:
        importlib.import_module(_MODULE)
    except Exception as e:  # whatever a package that does not fit the others raises
        return f"numba does not work here ({type(e).__name__}: {str(e)[:200]})"
    return ""


class Enlarger:
    """Filters once it is worth it; one object for all threads of a process."""

    def __init__(self, worth: int = WORTH):
        self._left, self._lock, self._loaded = worth, threading.Lock(), False

    def enlarged(self, image_HWC: np.ndarray, size: tuple[int, int], box: Box | None) -> np.ndarray | None:
        """[h, w, 1] of a box (left, top, right, bottom) of contiguous uint8 [H, W, 1], bicubic; None where Pillow has to be asked."""
        if image_HWC.shape[2] != 1 or image_HWC.dtype != np.uint8 or (box is None and image_HWC.shape[:2] == size):
            return None
        height = image_HWC.shape[0] if box is None else box[3] - box[1]
        if size[0] < height or not (self._loaded or self._load(size[0] * size[1])):
            return None
        from models.transforms.bicubic import enlarged

        return enlarged(image_HWC[..., 0], size, box)[..., None]

    def _load(self, pixels: int) -> bool:
        """Whether it is loaded now; while one thread does that, which may take a while, the others go on with Pillow."""
        self._left -= pixels
        if self._left > 0 or not self._lock.acquire(blocking=False):
            return False
        try:
            self._loaded = not why_not_own()
        finally:
            self._lock.release()
        return self._loaded


own = Enlarger()

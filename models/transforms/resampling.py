"""When views of one channel are filtered by machine code of medpair's own (bicubic.py) in place of Pillow: the same pixels, sooner.

It is loaded once a process has made so many pixels that it is worth it; before, where numba is missing or does not work, and where it is
not known what Pillow would do, Pillow filters. No result depends on which of them did.
"""

from __future__ import annotations

import numpy as np
import PIL

from compiled.loading import Loading, why_not

WORTH = 1 << 26
"""Pixels of views, some 0.3 s of filtering, from which on it is loaded (0.5 s with numba, compiled by an earlier process)."""
_MODULE = "models.transforms.bicubic"
Box = tuple[float, float, float, float]


def why_not_own() -> str:
    """Why Pillow alone filters here; empty where it does not."""
    return why_not(_MODULE)


def rows_first(image: tuple[int, int], size: tuple[int, int], version: str = PIL.__version__) -> bool | None:
    """Whether a Pillow filters rows before columns when it makes `size` (h, w) of an image (H, W); None where that is not known.

    Before Pillow 13 it never does. In 13 it does where more than twice as many rows as columns are to go (found by trying).
    """
    (H, W), (h, w) = image, size
    major = int(version.split(".")[0])
    if major < 13 or h >= H:
        return False
    return H - h > 2 * (W - w) if major == 13 else None


class Resampler:
    """Filters once it is worth it; one object for all threads of a process."""

    def __init__(self, worth: int = WORTH):
        self._loaded = Loading(_MODULE, worth, "views of grey films are filtered by Pillow alone")

    def resampled(self, image_HWC: np.ndarray, size: tuple[int, int], box: Box | None) -> np.ndarray | None:
        """[h, w, 1] of a box (left, top, right, bottom) of contiguous uint8 [H, W, 1], bicubic; None where Pillow has to be asked."""
        H, W, C = image_HWC.shape
        if C != 1 or image_HWC.dtype != np.uint8 or (box is None and size == (H, W)):
            return None
        if (order := rows_first((H, W), size)) is None or not self._loaded(size[0] * size[1]):
            return None
        from models.transforms.bicubic import resampled

        return resampled(image_HWC[..., 0], size, box, order)[..., None]


own = Resampler()

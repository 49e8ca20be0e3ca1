"""An image of a record that is decoded once it is known how finely: whole, or with its sides divided by 2, 4 or 8.

A JPEG is decoded to a smaller size by leaving out frequencies (the scaled inverse transform of its 8 x 8 blocks), which costs less
than decoding all of it, and so do the crop and the filter that follow. The sides are divided by powers of two alone: these have fast
paths in libjpeg-turbo, others (such as 5/8) are slower than the whole image. A grey JPEG is decoded to its one channel, and of one
that medpair decodes itself (jpeg_own.py) no more than the crop touches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from shards.format.codecs import Jpeg, Room

DIVISORS = (8, 4, 2)
LARGE = 1 << 20
"""Pixels from which on an image may be decoded smaller: below, there is next to nothing to save."""


class StoredImage:
    """An image as it lies in a shard (models' `Image`).

    Args:
        jpeg: its bytes, where they may be decoded in part; None for images that only `whole` can read.
        whole: reads it as `ShardRecord.read` does.
        exact: never decode it smaller.
        canvas: see `Jpeg.decode`.
        seen: told of an image that was decoded whole.
    """

    def __init__(
        self,
        jpeg: Jpeg | None,
        whole: Callable[[], np.ndarray],
        exact: bool,
        canvas: Room | None = None,
        seen: Callable[[np.ndarray], None] | None = None,
    ):
        self._jpeg, self._whole, self._exact = jpeg, whole, exact
        self._canvas, self._seen = canvas, seen

    @cached_property
    def _read(self) -> np.ndarray:
        return self._whole()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels of the whole image."""
        return self._read.shape[:2] if self._jpeg is None else (self._jpeg.height, self._jpeg.width)

    def divisor(self, shrink: float) -> int:
        """By how much its sides are divided where they may be, by up to `shrink`: 1, 2, 4 or 8."""
        H, W = self.size
        if self._exact or self._jpeg is None or H * W < LARGE:
            return 1
        return next((d for d in DIVISORS if d <= shrink), 1)

    def pixels(self, divisor: int = 1) -> np.ndarray:
        """uint8 [ceil(H / divisor), ceil(W / divisor), C]; C is 1 where all channels are equal, else 3.

        Raises:
            DataError: cannot be decoded.
        """
        if self._jpeg is None:
            return self._read
        image = self._jpeg.decode(divisor, self._canvas)
        if self._seen is not None:
            self._seen(image)
        return image

    def part(self, divisor: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, int, int]:
        """At least a box (left, top, right, bottom, in pixels of the whole image) of `pixels`, and the row and column where it begins.

        Raises:
            DataError: cannot be decoded, be it within the box or outside it.
        """
        return (self._read, 0, 0) if self._jpeg is None else self._jpeg.part(divisor, box)

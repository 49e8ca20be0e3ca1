"""An image of a record that is not decoded yet: a view that is smaller than what it is cut from need not decode all of it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np


class StoredImage(Protocol):
    """Implemented by the shard reader."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels of the whole image."""
        ...

    def divisor(self, shrink: float) -> int:
        """By how much its sides may be divided where a view shrinks them by `shrink`: 1, or what costs less to decode."""
        ...

    def pixels(self, divisor: int = 1) -> np.ndarray:
        """uint8 [ceil(H / divisor), ceil(W / divisor), 1 or 3]; one channel where all are equal."""
        ...

    def part(self, divisor: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, int, int]:
        """At least a box (left, top, right, bottom, in pixels of the whole image) of `pixels`, and the row and column where it begins."""
        ...


@runtime_checkable
class StoresImages(Protocol):
    """A record that can hand an image on undecoded."""

    def stored_image(self, name: str) -> StoredImage: ...

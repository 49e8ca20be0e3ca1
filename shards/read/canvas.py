"""Slots of a batch's arrays, filled by copying or, where an image is taken as it was decoded, by decoding straight into them."""

from __future__ import annotations

import threading

import numpy as np

from shards.read.arrays import ArrayPool


class Block:
    """Arrays [B, ...] of a batch, allocated when the first sample shows their shapes.

    Args:
        size: B.
        pool: where large arrays come from.
        direct: field -> name of the array that samples put it into unchanged; learnt, and shared by the blocks of a loader.
    """

    def __init__(self, size: int, pool: ArrayPool | None = None, direct: dict[str, str] | None = None):
        self._size = size
        self._pool = pool or ArrayPool(0)
        self._lock = threading.Lock()
        self._arrays: dict[str, np.ndarray] = {}
        self._images: dict[str, np.ndarray] = {}
        # Which slots hold an array: bytes that are set need no lock, unlike a count.
        self._filled: dict[str, bytearray] = {}
        self.direct = {} if direct is None else direct

    def home(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        """The array [B, *shape] called `name`, allocated if it is new; None when it has another shape or dtype."""
        home = self._arrays.get(name)
        if home is None:
            with self._lock:
                if name not in self._arrays:
                    self._filled[name] = bytearray(self._size)
                    made = self._arrays[name] = self._pool.empty((self._size, *shape), dtype)
                    if made.dtype == _UINT8 and made.ndim == 4:
                        self._images[name] = made
                home = self._arrays[name]
        return home if home.shape[1:] == shape and home.dtype == dtype else None

    def expected(self, field: str) -> tuple[str, np.ndarray] | None:
        """The image array that `field` ends in and its name, where earlier samples have shown both."""
        name = self.direct.get(field)
        home = None if name is None else self._images.get(name)
        return None if home is None or name is None else (name, home)

    def put(self, slot: int, arrays: dict[str, np.ndarray], canvas: Canvas | None = None) -> None:
        """Copies what fits into its slot and leaves a view of it in `arrays`; what does not fit stays as it is."""
        drawn = {} if canvas is None else canvas.settle(arrays)
        for name, array in arrays.items():
            if drawn.get(name) is not array:
                home = self.home(name, array.shape, array.dtype)
                if home is None:
                    continue
                home[slot] = array
                arrays[name] = home[slot, ...]
            self._filled[name][slot] = 1

    def full(self) -> dict[str, np.ndarray]:
        """The arrays that every sample fitted into."""
        return {name: self._arrays[name] for name, filled in self._filled.items() if all(filled)}


class Canvas:
    """Where one sample's images may be decoded: a record asks `take`, and tells `seen` what it decoded."""

    __slots__ = ("_block", "_seen", "_slot", "drawn")

    def __init__(self, block: Block, slot: int):
        self._block, self._slot = block, slot
        self.drawn: dict[str, np.ndarray] = {}
        self._seen: dict[str, np.ndarray] = {}

    def take(self, field: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The slot that `field` is expected to end in, uint8; None when nothing is expected or it has another shape."""
        name = self._block.direct.get(field)
        home = None if name is None else self._block.home(name, shape, _UINT8)
        if home is None or name is None or name in self.drawn:
            return None
        view = self.drawn[name] = home[self._slot]
        return view

    def expected(self, field: str) -> np.ndarray | None:
        """The slot that `field` is expected to end in, where earlier samples have shown which and of what shape."""
        found = self._block.expected(field)
        if found is None or found[0] in self.drawn:
            return None
        view = self.drawn[found[0]] = found[1][self._slot]
        return view

    def erase(self, view: np.ndarray) -> None:
        """Takes an expectation back: the image was another one."""
        self.drawn = {name: drawn for name, drawn in self.drawn.items() if drawn is not view}

    def seen(self, field: str, image: np.ndarray) -> None:
        self._seen[field] = image

    def settle(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Learns which fields end in which arrays, and saves from being overwritten what shares memory with a slot.

        Returns `drawn`: where an array is the one of that name there, it lies in its slot already.
        """
        drawn, direct = self.drawn, self._block.direct
        for field, image in self._seen.items():
            known = direct.get(field)
            if known is None or arrays.get(known) is not image:
                for name, array in arrays.items():
                    if array is image:
                        direct[field] = name
        for drawn_name, view in drawn.items():
            for name, array in arrays.items():
                if not (array is view and name == drawn_name) and np.may_share_memory(array, view):
                    arrays[name] = array.copy()
        return drawn


_UINT8 = np.dtype(np.uint8)

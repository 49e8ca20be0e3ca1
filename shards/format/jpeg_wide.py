"""Whether all codes of a JPEG are there, read at many places at once, where the processor has registers for them (compiled/wide.py)."""

from __future__ import annotations

import threading
from ctypes import c_char_p, c_int64
from typing import TYPE_CHECKING

import numpy as np

from compiled.objects import Arguments, functions
from compiled.wide import LANES
from shards.format.jpeg_huffman import LOOK, PAD, STRIDE, codes_of
from shards.format.jpeg_states import BLOCKS, KEPT, MOST_ROWS, SIZE, states

if TYPE_CHECKING:
    from shards.format.jpeg_codes import ColourPlan

LEAST = 512
"""Blocks of a file from which on it is read so."""
KEPT_ROWS, KEPT_PLANS = 4, 256
"""Tables whose rows are kept, some megabyte each, and files that begin alike."""
_ARGUMENTS: Arguments = {"fill_wide": [c_int64] * 5, "whole_wide": [c_char_p, *[c_int64] * 8]}
_code = functions("shards.format.jpeg_wide_entry", _ARGUMENTS)
_whole, _fill = _code["whole_wide"], _code["fill_wide"]
Pairs = tuple[tuple[bytes, bytes], ...]


class _Room(threading.local):
    """Memory of a thread: for the machine code to work in, and what the last files with other tables are read by."""

    def __init__(self) -> None:
        self._bits = np.empty(0, np.uint8)
        self._kept, self._first = np.zeros((KEPT, LANES), np.uint64), np.empty((2, 1 << LOOK), np.int32)
        self._scratch = np.empty((3, 2 * SIZE), np.int32)
        self._rows: dict[Pairs, np.ndarray | None] = {}
        self._spare: list[np.ndarray] = []
        self._places: dict[int, tuple[ColourPlan, np.ndarray, int, int]] = {}
        self.kept, self._address = self._kept.ctypes.data, 0

    def bits(self, size: int) -> int:
        """Where there is room for so many bytes of codes."""
        if len(self._bits) < size + PAD + STRIDE:
            self._bits = np.empty(size + (size >> 1) + PAD + STRIDE, np.uint8)
            self._address = self._bits.ctypes.data
        return self._address

    def places(self, plan: ColourPlan) -> tuple[int, int]:
        """Where the rows of its tables and the states of its MCUs stand; zeros where the tables are odd or too many."""
        # By the object, which is the same for files that begin alike: a hash of its bytes would be made for each of them.
        if (found := self._places.get(id(plan))) is None:
            if len(self._places) == KEPT_PLANS:
                self._places.clear()
            of, rows = states(plan.blocks), self._of(plan.pairs)
            found = self._places[id(plan)] = plan, of, 0 if rows is None else rows.ctypes.data, of.ctypes.data
        return found[2:]

    def _of(self, pairs: Pairs) -> np.ndarray | None:
        """The rows of these tables."""
        if pairs not in self._rows:
            if len(self._rows) == KEPT_ROWS:
                self._places.clear()
                self._spare += [old for old in self._rows.values() if old is not None]
                self._rows.clear()
            self._rows[pairs] = self._filled(pairs)
        return self._rows[pairs]

    def _filled(self, pairs: Pairs) -> np.ndarray | None:
        each = [codes_of(*pair) for pair in pairs]
        if any(codes is None for codes in each):
            return None
        codes = np.concatenate([c for c in each if c is not None])
        rows = self._spare.pop() if self._spare else np.zeros((MOST_ROWS + 1, SIZE), np.uint32)
        to = (self._first.ctypes.data, self._scratch.ctypes.data, rows.ctypes.data)
        if _fill(codes.ctypes.data, len(pairs), *to) < 0:
            self._spare.append(rows)
            return None
        return rows


_room = _Room()


def whole(data: bytes, begin: int, plan: ColourPlan) -> bool | None:
    """As `jpeg_whole.whole`; None of a file that has to be read otherwise."""
    of_mcu = len(plan.blocks)
    blocks, end = plan.mcus * of_mcu, len(data) - 2
    if of_mcu > BLOCKS or blocks < LEAST:
        return None
    rows, at = _room.places(plan)
    if not rows:
        return None
    return bool(_whole(data, begin, end, blocks, of_mcu, _room.bits(end - begin), rows, at, _room.kept))

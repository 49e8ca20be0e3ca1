"""Whether all codes of a baseline JPEG are there, asked of machine code (compiled/objects.py), which is loaded with this module.

They are read at many places at once where the processor has wide registers (jpeg_wide.py), else, and in small files, at a few in turns.
"""

from __future__ import annotations

import importlib
import threading
from ctypes import c_char_p, c_int64
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from compiled.objects import Arguments, functions
from compiled.wide import is_wide
from shards.format.jpeg_huffman import BEYOND, KEPT, LOOK, LOOK_VALUES, MOST_BITS, PAD, PLACES, START, STRIDE, codes_of

if TYPE_CHECKING:
    from shards.format.jpeg_codes import ColourPlan

_ARGUMENTS: Arguments = {"fill_tables": [c_int64] * 4, "whole": [c_char_p, *[c_int64] * 12]}
_code = functions("shards.format.jpeg_entry", _ARGUMENTS)
_whole, _fill = _code["whole"], _code["fill_tables"]
_wide = importlib.import_module("shards.format.jpeg_wide") if is_wide() else None


class _Room(threading.local):
    """Memory of a thread for the machine code to work in."""

    def __init__(self) -> None:
        self._bits, self._starts, self._at = (
            np.empty(0, np.uint8),
            np.empty(0, np.int32),
            np.zeros((PLACES + 1, KEPT), np.uint64),
        )
        self._addresses = 0, 0, 0

    def of(self, size: int, mcus: int) -> tuple[int, int, int]:
        """Addresses of bits, starts, and places, for a file of so many bytes and MCUs."""
        if len(self._bits) < size + PAD + STRIDE or len(self._starts) < PLACES * (mcus + BEYOND):
            self._bits = np.empty(size + (size >> 1) + PAD + STRIDE, np.uint8)
            self._starts = np.empty(PLACES * (mcus + (mcus >> 1) + BEYOND), np.int32)
            self._addresses = self._bits.ctypes.data, self._starts.ctypes.data, self._at.ctypes.data
        return self._addresses


_room = _Room()


def whole(data: bytes, begin: int, plan: ColourPlan) -> bool:
    """Whether all pixels of a file, whose codes begin at a byte, are surely there, with nothing wrong in their codes."""
    if data[-2:] != b"\xff\xd9" or 8 * len(data) > MOST_BITS:
        return False
    said: bool | None = _wide.whole(data, begin, plan) if _wide else None
    return in_turns(data, begin, plan) if said is None else said


def in_turns(data: bytes, begin: int, plan: ColourPlan) -> bool:
    """The same, read at a few places in turns."""
    if (found := _tables(plan.pairs, plan.blocks)) is None:
        return False
    end = len(data) - 2
    bits, starts, at = _room.of(end - begin, plan.mcus)
    return bool(_whole(data, begin, end, plan.mcus, bits, *found.addresses, starts, at))


@dataclass(frozen=True)
class _Tables:
    arrays: tuple[np.ndarray, ...]
    addresses: tuple[int, ...]
    """As the machine code takes them."""


@lru_cache(maxsize=64)
def _tables(pairs: tuple[tuple[bytes, bytes], ...], blocks: tuple[int, ...]) -> _Tables | None:
    """Tables of several pairs, one after the other, and the phases (jpeg_mcus.py) of an MCU whose blocks have those; None of odd ones."""
    each = [codes_of(*pair) for pair in pairs]
    if any(codes is None for codes in each):
        return None
    codes = np.concatenate([c for c in each if c is not None])
    passing, values = np.zeros(len(pairs) * (2 << LOOK), np.uint16), np.zeros(len(pairs) * (2 << LOOK_VALUES), np.int32)
    first = np.empty((2, 1 << LOOK), np.int32)
    for i in range(len(pairs)):
        rows, look, valued = codes[2 * i :], values[i * (2 << LOOK_VALUES) :], passing[i * (2 << LOOK) :]
        _fill(rows.ctypes.data, first.ctypes.data, look.ctypes.data, valued.ctypes.data)
    phases = _phases(blocks)
    to = [a.ctypes.data for a in (codes, passing, values)]
    return _Tables((codes, passing, values, phases), (*to, len(pairs), phases.ctypes.data, len(blocks)))


def _phases(blocks: tuple[int, ...]) -> np.ndarray:
    """Of an MCU whose blocks have those pairs of tables."""
    n = len(blocks)
    phases = np.zeros(2 * n, np.uint64)
    for i, table in enumerate(blocks):
        following = (i + 1) % n
        row, start = table << LOOK + 1, blocks[following] << LOOK + 1 | START
        phases[i] = row | start << 16 | i << 32 | following << 40 | (following == 0) << 48 | table << 56
        phases[n + i] = row | i << 16 | start << 32 | following << 48
    return phases

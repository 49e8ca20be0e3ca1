"""The Huffman codes of a baseline JPEG, read from first to last (numba).

Of a grey one where its blocks begin among its bits, once all of them are seen to be there (jpeg_scan.py); of one of several colours
whether they are (jpeg_mcus.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.format.jpeg_codes import END, ColourPlan, GreyPlan, grey_plan
from shards.format.jpeg_mcus import BEYOND, all_there
from shards.format.jpeg_scan import PAD, START, STRIDE, block_starts, unstuffed
from shards.format.jpeg_tables import LOOK, Tables, tables

MOST_BITS = 1 << 30


@dataclass
class Scan:
    """A file of which it is known where each block begins."""

    plan: GreyPlan
    tables: Tables
    bits: np.ndarray
    starts: np.ndarray


def scanned(data: bytes) -> Scan | None:
    """The blocks of a file; None unless all of them are surely there and nothing is wrong with them."""
    plan = grey_plan(data)
    if plan is None or data[-2:] != END or 8 * len(data) > MOST_BITS or (found := tables(plan.dc, plan.ac)) is None:
        return None
    if (codes := _bits(data, plan.begin)) is None:
        return None
    bits, length = codes
    starts = np.empty((2, plan.across * plan.down + 2), np.int32)
    if not block_starts(bits, 8 * length, plan.across * plan.down, *found, starts):
        return None
    return Scan(plan, found, bits, starts[0])


def _bits(data: bytes, begin: int) -> tuple[np.ndarray, int] | None:
    """The bytes of the scan that begins at a byte and goes to the end of the file, with `PAD` zeros behind them, and how many they are."""
    codes = np.frombuffer(data, np.uint8)[begin:-2]
    bits = np.empty(len(codes) + PAD + STRIDE, np.uint8)
    length = unstuffed(codes, bits)
    if length < 0:
        return None
    bits[length:] = 0
    return bits, length


def whole(data: bytes, plan: ColourPlan) -> bool:
    """Whether all pixels of a file of several colours are surely there, with nothing wrong in their codes."""
    found = _several(plan.pairs, plan.blocks)
    if data[-2:] != END or 8 * len(data) > MOST_BITS or found is None or (codes := _bits(data, plan.begin)) is None:
        return False
    bits, length = codes
    starts = np.empty((2, plan.mcus + BEYOND), np.int32)
    return bool(all_there(bits, 8 * length, plan.mcus, *found, starts))


@lru_cache(maxsize=64)
def _several(
    pairs: tuple[tuple[bytes, bytes], ...], blocks: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Tables of several pairs, one after the other, and the phases (jpeg_mcus.py) of an MCU whose blocks have those; None of odd ones."""
    each = [found for pair in pairs if (found := tables(*pair)) is not None]
    if len(each) < len(pairs):
        return None
    phases, n = np.zeros(len(blocks), np.uint64), len(blocks)
    for i, table in enumerate(blocks):
        following = (i + 1) % n
        row, start = table << LOOK + 1, blocks[following] << LOOK + 1 | int(START)
        phases[i] = row | start << 16 | i << 32 | following << 40 | (following == 0) << 48 | table << 56
    codes, passing, values = (np.concatenate([t[i] for t in each]) for i in range(3))
    return codes, passing, values, phases

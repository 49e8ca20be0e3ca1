"""Where the blocks of a grey baseline JPEG begin among its bits, once all of them are seen to be there (numba; jpeg_scan.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shards.format.jpeg_codes import END, GreyPlan, grey_plan
from shards.format.jpeg_huffman import MOST_BITS, PAD, STRIDE
from shards.format.jpeg_scan import block_starts, unstuffed
from shards.format.jpeg_tables import Tables, tables


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

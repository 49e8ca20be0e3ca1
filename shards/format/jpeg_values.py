"""Reads values from the codes of a grey baseline JPEG, of which it is known where each block begins (jpeg_scan.py).

Compiled by numba (extra `numba`). Nothing is checked here that `block_starts` has checked.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from shards.format.jpeg_scan import window
from shards.format.jpeg_tables import LOOK_VALUES, any_code

LANES = 64
"""Blocks whose values lie side by side: as many as are transformed together."""
ROW = np.uint64(1 << LOOK_VALUES)
DC_RANGE = 1 << 14
IN_WINDOW = 4
"""Codes that are read from one window: four of `LOOK_VALUES` bits are in 57."""


def zigzag() -> np.ndarray:
    """uint64 [128]: where the coefficient lies that is the i-th read, from 1 on, in [65, LANES]; the last row is for what is none."""
    walk = sorted(((r, c) for r in range(8) for c in range(8)), key=lambda at: (sum(at), at[sum(at) % 2 == 0]))
    return np.array([64, *(8 * r + c for r, c in walk), *[64] * 63], np.uint64) * np.uint64(LANES)


@njit("b1(u1[::1], i4[::1], i8, i8[:, ::1], i4[::1], i4[::1])", nogil=True, cache=True)
def dc_values(
    bits: np.ndarray, starts: np.ndarray, blocks: int, codes: np.ndarray, values: np.ndarray, out: np.ndarray
) -> bool:
    """int32 `out`: the DC values of the first blocks, each the sum of the differences up to it; False where one is out of range."""
    total, low, high = np.int64(0), np.int64(0), np.int64(0)
    for b in range(blocks):
        front = window(bits, uint64(starts[b]))
        entry = np.int64(values[ROW | front >> uint64(64 - LOOK_VALUES)])
        if entry == 0:
            entry = any_code(front, codes[0], True)
        total += entry >> 16
        low, high = min(low, total), max(high, total)
        out[b] = total
    return low > -DC_RANGE and high < DC_RANGE


@njit("(u1[::1], i4[::1], i8, i8, i8[:, ::1], i4[::1], u8[::1], i4[::1], i4[::1])", nogil=True, cache=True)
def coefficients(
    bits: np.ndarray,
    starts: np.ndarray,
    first: int,
    count: int,
    codes: np.ndarray,
    values: np.ndarray,
    order: np.ndarray,
    quanta: np.ndarray,
    out: np.ndarray,
) -> None:
    """int32 `out` [65 * LANES]: coefficients of `count` blocks from `first` on, times their quanta; of DC the differences.

    The blocks are read at two places in turns, as in jpeg_scan.py.
    """
    out[:] = 0
    half = uint64(count + 1) >> uint64(1)
    stop, stop2 = half, uint64(count)
    b, b2 = uint64(0), half
    pos, pos2 = uint64(starts[first]), uint64(starts[first + np.int64(half)])
    k, k2, row, row2 = uint64(0), uint64(0), ROW, ROW
    while b < stop or b2 < stop2:
        if b2 == stop2:
            # The other one alone: its place is put where both are looked at, the second one's work goes to the row for nothing.
            pos2, k2, row2 = uint64(0), uint64(0), ROW
        if b == stop:
            b, stop, pos, k, row = b2, stop2, pos2, k2, row2
            b2, pos2, k2, row2 = stop2, uint64(0), uint64(0), ROW
        both = b2 < stop2
        front, front2 = window(bits, pos), window(bits, pos2)
        for _ in range(IN_WINDOW):
            entry = np.int64(values[row | front >> uint64(64 - LOOK_VALUES)])
            if entry == 0:
                front = window(bits, pos)
                entry = any_code(front, codes[0 if row else 1], row != uint64(0))
            taken, i = uint64(entry) & uint64(63), k + (uint64(entry) >> uint64(8) & uint64(127))
            front, pos = front << taken, pos + taken
            out[order[i] + b] = np.int32(entry >> 16) * quanta[i]
            ends = i >> uint64(6)
            b, k, row = b + ends, i & (ends - uint64(1)), ends << uint64(LOOK_VALUES)
            if both:
                entry = np.int64(values[row2 | front2 >> uint64(64 - LOOK_VALUES)])
                if entry == 0:
                    front2 = window(bits, pos2)
                    entry = any_code(front2, codes[0 if row2 else 1], row2 != uint64(0))
                taken, i = uint64(entry) & uint64(63), k2 + (uint64(entry) >> uint64(8) & uint64(127))
                front2, pos2 = front2 << taken, pos2 + taken
                out[order[i] + b2] = np.int32(entry >> 16) * quanta[i]
                ends = i >> uint64(6)
                b2, k2, row2 = b2 + ends, i & (ends - uint64(1)), ends << uint64(LOOK_VALUES)
                if b2 == stop2:
                    break
            if b == stop:
                break

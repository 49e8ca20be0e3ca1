"""Reads values from the codes of a grey baseline JPEG, of which it is known where each block begins (jpeg_scan.py).

A look-up takes up to two codes with their values. What the next look-up waits for stands in a table of its own, which stays in the
processor's nearest cache:

    steps   uint16 [2 << LOOK]; from the low bits on: bits of the file that the codes take (6), coefficients that they go on (7; 64: no
            code and value are whole in so many bits), whether the block ends (1)
    pairs   int32 [2 << LOOK]: coefficients that the first code goes on (8), its value (12), the second value (12), or the first again;
            of a code whose value is not whole: the bits of the code (5) and its symbol; 0 of a longer code

As in jpeg_tables.py the first half is for codes within a block, the second for a block's beginning. Compiled by numba (extra `numba`).
Nothing is checked here that `block_starts` has checked.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import int16, int32, uint64

from compiled.kernel import kernel
from shards.format.jpeg_huffman import END, LOOK, LOOK_VALUES
from shards.format.jpeg_scan import window
from shards.format.jpeg_tables import any_code, first_codes, meant

LANES, STRIDE = 64, 96
"""Blocks whose values lie side by side: as many as are transformed together; and room for those that are read beyond them."""
ROW, START = np.uint64(1 << LOOK_VALUES), np.uint64(1 << LOOK)
NONE = 64
WIDEST = 11
"""Bits of a value in `pairs`, which has its sign too."""
DC_RANGE = 1 << 14
IN_WINDOW = 4
"""Look-ups from one window: four of `LOOK` bits are in 57."""


def zigzag() -> np.ndarray:
    """uint64 [128]: where the coefficient lies that is the i-th read, from 1 on, in [65, STRIDE]; the last row is for what is none."""
    walk = sorted(((r, c) for r in range(8) for c in range(8)), key=lambda at: (sum(at), at[sum(at) % 2 == 0]))
    return np.array([64, *(8 * r + c for r, c in walk), *[64] * 63], np.uint64) * np.uint64(STRIDE)


Pairs = tuple[np.ndarray, np.ndarray]


@lru_cache(maxsize=64)
def pairs_of(codes: bytes) -> Pairs:
    """(steps, pairs) of the bytes of `codes` (jpeg_tables.py)."""
    steps, pairs = np.zeros(2 << LOOK, np.uint16), np.zeros(2 << LOOK, np.int32)
    fill_pairs(np.frombuffer(codes, np.int64).reshape(2, -1).copy(), steps, pairs)
    return steps, pairs


@kernel("UniTuple(i8, 4)(i8, i8, i4[::1], b1)")
def _valued(bits: int, left: int, first: np.ndarray, is_dc: bool) -> tuple[int, int, int, int]:
    """Of the code that `LOOK` bits begin with, of which so many are known: bits (0: it is not whole), coefficients, value, end."""
    code = first[bits]
    size, on = meant(code >> 5, is_dc)
    taken = (code & 31) + size
    if code == 0 or taken > left or size > WIDEST:
        return 0, 0, 0, 0
    if on == END:
        return taken, 1, 0, 1  # a zero is written to the next place, where one is
    value = (bits >> (LOOK - taken)) & ((1 << size) - 1)
    if size and value < 1 << (size - 1):
        value -= (1 << size) - 1
    return taken, on, value, 0


@kernel("(i8[:, ::1], u2[::1], i4[::1])")
def fill_pairs(codes: np.ndarray, steps: np.ndarray, pairs: np.ndarray) -> None:
    """Fills `steps` and `pairs`."""
    first = np.empty((2, 1 << LOOK), np.int32)
    for half in range(2):
        first_codes(codes[half], first[half])
    for half in range(2):
        for bits in range(1 << LOOK):
            at, own = half << LOOK | bits, first[1 - half]
            taken, on, value, ends = _valued(bits, LOOK, own, half == 1)
            if not taken:
                steps[at], pairs[at] = NONE << 6, own[bits]
                continue
            more, step, second = 0, 0, value
            if not ends:
                rest = (bits << taken) & ((1 << LOOK) - 1)
                more, step, other, ends = _valued(rest, LOOK - taken, first[1], False)
                second = other if more else value
            steps[at] = ends << 13 | (on + step) << 6 | (taken + more)
            pairs[at] = second << 20 | (value & 0xFFF) << 8 | on


@kernel("b1(u1[::1], i4[::1], i8, i8[:, ::1], i4[::1], i4[::1])")
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


@kernel("Tuple((u8, u8, i8))(u1[::1], u8, u8, u8, u8, i4, i8[:, ::1])")
def _one(bits: np.ndarray, pos: int, k: int, row: int, step: int, pair: int, codes: np.ndarray) -> tuple[int, int, int]:
    """Past one code that no look-up takes: the bit behind it, coefficients of its block (65 at most), its value."""
    front, is_dc = window(bits, pos), row != uint64(0)
    if step == uint64(NONE << 6) and pair != 0:
        n, symbol = np.int64(pair & 31), np.int64(pair >> 5)
        size, on = meant(symbol, is_dc)
        value = np.int64(front << uint64(n) >> uint64(64 - size))
        if value < 1 << (size - 1):
            value -= (1 << size) - 1
        return pos + uint64(n + size), min(k + uint64(on), uint64(65)), value
    entry = any_code(front, codes[0 if is_dc else 1], is_dc)
    return pos + uint64(entry & 63), min(k + uint64(entry >> 8 & 127), uint64(65)), entry >> 16


@kernel("(u1[::1], u8, u8, u8, u8, u8, i8[:, ::1], u2[::1], i4[::1], u8[::1], i2[::1])")
def _rest(
    bits: np.ndarray,
    pos: int,
    k: int,
    row: int,
    b: int,
    stop: int,
    codes: np.ndarray,
    steps: np.ndarray,
    pairs: np.ndarray,
    order: np.ndarray,
    out: np.ndarray,
) -> None:
    """`coefficients`, of one place alone."""
    while b < stop:
        front = window(bits, pos)
        for _ in range(IN_WINDOW):
            at = row | front >> uint64(64 - LOOK)
            step, pair = uint64(steps[at]), pairs[at]
            j = k + (step >> uint64(6) & uint64(127))
            if j & uint64(NONE):
                pos, j, value = _one(bits, pos, k, row, step, pair, codes)
                out[order[j] + b] = int16(value)
                ends, front = j >> uint64(6), window(bits, pos)
            else:
                out[order[k + (uint64(pair) & uint64(255))] + b] = int16(int32(pair << int32(12)) >> int32(20))
                out[order[j] + b] = int16(pair >> int32(20))
                ends, taken = step >> uint64(13), step & uint64(63)
                front, pos = front << taken, pos + taken
            k, row, b = j & (ends - uint64(1)), ends << uint64(LOOK), b + ends


@kernel("(u1[::1], i4[::1], i8, i8, i8[:, ::1], u2[::1], i4[::1], u8[::1], i2[::1])")
def coefficients(
    bits: np.ndarray,
    starts: np.ndarray,
    first: int,
    count: int,
    codes: np.ndarray,
    steps: np.ndarray,
    pairs: np.ndarray,
    order: np.ndarray,
    out: np.ndarray,
) -> None:
    """int16 `out` [65 * STRIDE]: coefficients of `count` blocks from `first` on, as coded; of DC the differences.

    The blocks are read at two places in turns, as in jpeg_scan.py; a place may go on for some look-ups behind its last block.
    """
    out[:] = 0
    half = uint64(count + 1) >> uint64(1)
    b, b2, stop, stop2 = uint64(0), half, half, uint64(count)
    pos, pos2 = uint64(starts[first]), uint64(starts[first + np.int64(half)])
    k, k2, row, row2 = uint64(0), uint64(0), START, START
    while b < stop and b2 < stop2:
        front, front2 = window(bits, pos), window(bits, pos2)
        for _ in range(IN_WINDOW):
            at = row | front >> uint64(64 - LOOK)
            step, pair = uint64(steps[at]), pairs[at]
            j = k + (step >> uint64(6) & uint64(127))
            if j & uint64(NONE):
                pos, j, value = _one(bits, pos, k, row, step, pair, codes)
                out[order[j] + b] = int16(value)
                ends, front = j >> uint64(6), window(bits, pos)
            else:
                out[order[k + (uint64(pair) & uint64(255))] + b] = int16(int32(pair << int32(12)) >> int32(20))
                out[order[j] + b] = int16(pair >> int32(20))
                ends, taken = step >> uint64(13), step & uint64(63)
                front, pos = front << taken, pos + taken
            k, row, b = j & (ends - uint64(1)), ends << uint64(LOOK), b + ends
            at = row2 | front2 >> uint64(64 - LOOK)
            step, pair = uint64(steps[at]), pairs[at]
            j = k2 + (step >> uint64(6) & uint64(127))
            if j & uint64(NONE):
                pos2, j, value = _one(bits, pos2, k2, row2, step, pair, codes)
                out[order[j] + b2] = int16(value)
                ends, front2 = j >> uint64(6), window(bits, pos2)
            else:
                out[order[k2 + (uint64(pair) & uint64(255))] + b2] = int16(int32(pair << int32(12)) >> int32(20))
                out[order[j] + b2] = int16(pair >> int32(20))
                ends, taken = step >> uint64(13), step & uint64(63)
                front2, pos2 = front2 << taken, pos2 + taken
            k2, row2, b2 = j & (ends - uint64(1)), ends << uint64(LOOK), b2 + ends
    if b2 < stop2:
        b, stop, pos, k, row = b2, stop2, pos2, k2, row2
    _rest(bits, pos, k, row, b, stop, codes, steps, pairs, order, out)
    for at in range(64):
        for lane in range(at * STRIDE + count, min(at * STRIDE + count + IN_WINDOW, (at + 1) * STRIDE)):
            out[lane] = 0

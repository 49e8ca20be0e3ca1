"""Reads the Huffman codes of a grey baseline JPEG from first to last: where each block begins, and whether all of them are there.

Values are passed over, so that one look-up takes several codes. Two places of the file are read in turns by one thread: each look-up has to
wait for the one before it, and in that time the other place goes on. The second begins in the middle of the file, at a bit of which it is
not known what it belongs to. Codes of JPEG find back by themselves within a few blocks, and it is seen whether they did: where the first
place comes to a block that the second has begun at the same bit, everything behind is the same. Where that never happens, it goes on alone.
Compiled by numba (extra `numba`).
"""

from __future__ import annotations

import numpy as np
from numba import njit, types, uint64

from compiled.kernel import kernel
from compiled.vectors import copied, lowest
from shards.format.jpeg_huffman import END, LOOK, LOOK_VALUES, STRIDE
from shards.format.jpeg_huffman import START as FIRST
from shards.format.jpeg_tables import any_code

_READ_ONLY = types.Array(types.uint8, 1, "C", readonly=True)
START = np.uint64(FIRST)
BROKEN = 2
POS, K, ROW, N = range(4)
"""Of a place in the file: bits before it, coefficients of its block before it, which half of the tables, blocks before it."""


# Compiled when this module is loaded, once for all processes that are forked then; the machine code is kept on disk.
@kernel(types.int64(_READ_ONLY, types.uint8[::1]))
def unstuffed(codes: np.ndarray, out: np.ndarray) -> int:
    """Copies the bytes of a scan without the zeros that stand behind each 255; how many they are, -1 where a marker stands among them.

    `out` has room for `STRIDE` bytes more.
    """
    n, i, size, stride = uint64(0), uint64(0), uint64(len(codes)), uint64(STRIDE)
    while i < size:
        if i + stride <= size:
            marks = copied(codes, i, out, n, np.uint8(255))
            before = lowest(marks) if marks else stride
            i, n = i + before, n + before
            if before == stride:
                continue
        byte = codes[i]
        out[n] = byte
        n, i = n + uint64(1), i + uint64(1)
        if byte == 255:
            if i == size or codes[i] != 0:
                return -1
            i += uint64(1)
    return n


# Put in place where it is called: as a call, it would count the references to its array each time.
@njit(inline="always")
def window(bits: np.ndarray, pos: int) -> int:
    """64 bits from bit `pos` on, of which 57 are sure to be those of the file."""
    i = pos >> uint64(3)
    high = uint64(bits[i]) << uint64(56) | uint64(bits[i + uint64(1)]) << uint64(48)
    high |= uint64(bits[i + uint64(2)]) << uint64(40) | uint64(bits[i + uint64(3)]) << uint64(32)
    low = uint64(bits[i + uint64(4)]) << uint64(24) | uint64(bits[i + uint64(5)]) << uint64(16)
    low |= uint64(bits[i + uint64(6)]) << uint64(8) | uint64(bits[i + uint64(7)])
    return (high | low) << (pos & uint64(7))


@kernel("UniTuple(u8, 3)(u1[::1], u8, u8, i8[:, ::1], i4[::1])")
def _single(bits: np.ndarray, pos: int, k: int, codes: np.ndarray, values: np.ndarray) -> tuple[int, int, int]:
    """Past one code: the bit behind it, coefficients of its block, and 1 where the block ended, or BROKEN."""
    front, is_dc = window(bits, pos), k == uint64(0)
    entry = np.int64(values[(uint64(is_dc) << uint64(LOOK_VALUES)) | (front >> uint64(64 - LOOK_VALUES))])
    if entry == 0:
        entry = any_code(front, codes[0 if is_dc else 1], is_dc)
    on = uint64(entry >> 8 & 255)
    pos, k = pos + uint64(entry & 63), k + on
    if entry == 0 or (k > uint64(END) and on < uint64(END)):
        return pos, k, uint64(BROKEN)
    return pos, k & uint64(END - 1) if k < uint64(END) else uint64(0), uint64(k >= uint64(END))


@njit(inline="always")
def _on(entry: int, pos: int, k: int) -> tuple[int, int, int]:
    """Past the codes of an entry that is not special: (pos, k, row)."""
    ends = entry >> uint64(15)
    k = (k + (entry >> uint64(7) & uint64(127))) & (ends - uint64(1))
    return pos + (entry & uint64(63)), k, ends << uint64(LOOK)


@kernel("b1(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[::1], u8, u8, i4[::1])")
def _alone(
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    at: np.ndarray,
    stop: int,
    most: int,
    starts: np.ndarray,
) -> bool:
    """Goes on from place `at` up to bit `stop` or `most` blocks, noting where blocks begin; False where something is broken."""
    pos, k, row, n = at[POS], at[K], at[ROW], at[N]
    sound = True
    while sound and pos < stop and n < most:
        front = window(bits, pos)
        for _ in range(3):
            entry = uint64(passing[row | front >> uint64(64 - LOOK)])
            if k + (entry >> uint64(7) & uint64(127)) >= uint64(END):
                pos, k, ended = _single(bits, pos, k, codes, values)
                sound = ended != uint64(BROKEN)
                starts[n + uint64(1)] = pos
                n += ended & uint64(1)
                row = START if k == uint64(0) else uint64(0)
                break
            pos, k, row = _on(entry, pos, k)
            front <<= entry & uint64(63)
            starts[n + uint64(1)] = pos  # overwritten until the block ends
            n += row >> uint64(LOOK)
            if n == most:
                break
    at[POS], at[K], at[ROW], at[N] = pos, k, row, n
    return sound


@kernel("b1(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[:, ::1], u8[::1], u8, i4[:, ::1])")
def _both(
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    at: np.ndarray,
    stops: np.ndarray,
    most: int,
    starts: np.ndarray,
) -> bool:
    """`_alone` of two places in turns, up to where the first of them is done; False where the first one's file is broken.

    Where the second finds something broken, it has not found back yet: it begins anew a bit further on.
    """
    pos, k, row, n = at[0, POS], at[0, K], at[0, ROW], at[0, N]
    pos2, k2, row2, n2 = at[1, POS], at[1, K], at[1, ROW], at[1, N]
    first, second = starts[0], starts[1]
    sound = True
    while sound and pos < stops[0] and pos2 < stops[1] and n < most and n2 < most:
        front, front2 = window(bits, pos), window(bits, pos2)
        for _ in range(3):
            entry = uint64(passing[row | front >> uint64(64 - LOOK)])
            entry2 = uint64(passing[row2 | front2 >> uint64(64 - LOOK)])
            special = k + (entry >> uint64(7) & uint64(127)) >= uint64(END)
            special2 = k2 + (entry2 >> uint64(7) & uint64(127)) >= uint64(END)
            if special or special2:
                if special:
                    pos, k, ended = _single(bits, pos, k, codes, values)
                    sound = ended != uint64(BROKEN)
                    first[n + uint64(1)] = pos
                    n += ended & uint64(1)
                    row = START if k == uint64(0) else uint64(0)
                if special2:
                    before = pos2
                    pos2, k2, ended = _single(bits, pos2, k2, codes, values)
                    second[n2 + uint64(1)] = pos2
                    n2 += ended & uint64(1)
                    if ended == uint64(BROKEN):
                        pos2, k2, n2 = before + uint64(1), uint64(0), uint64(0)
                        second[0] = pos2
                    row2 = START if k2 == uint64(0) else uint64(0)
                break
            pos, k, row = _on(entry, pos, k)
            pos2, k2, row2 = _on(entry2, pos2, k2)
            front <<= entry & uint64(63)
            front2 <<= entry2 & uint64(63)
            # Overwritten until the block ends.
            first[n + uint64(1)], second[n2 + uint64(1)] = pos, pos2
            n, n2 = n + (row >> uint64(LOOK)), n2 + (row2 >> uint64(LOOK))
            if n == most or n2 == most:
                break
    at[0, POS], at[0, K], at[0, ROW], at[0, N] = pos, k, row, n
    at[1, POS], at[1, K], at[1, ROW], at[1, N] = pos2, k2, row2, n2
    return sound


@kernel("i8(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[:, ::1], u8, i4[:, ::1])")
def _meeting(
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    at: np.ndarray,
    most: int,
    starts: np.ndarray,
) -> int:
    """Lets the first place go on to a block that the second has begun too: which of the second's that is.

    -1 where there is none, -BROKEN where the file is broken before.
    """
    number, have = 0, np.int64(at[1, N])
    while True:
        if at[0, K] == uint64(0) and at[0, ROW] == START:
            while number <= have and starts[1, number] < np.int64(at[0, POS]):
                number += 1
            if number > have:
                return -1
            if starts[1, number] == np.int64(at[0, POS]):
                return number
        if at[0, N] >= most:
            return -1
        pos, k, ended = _single(bits, at[0, POS], at[0, K], codes, values)
        at[0, POS], at[0, K] = pos, k
        if ended == uint64(BROKEN):
            return -BROKEN
        at[0, ROW] = START if k == uint64(0) else uint64(0)
        at[0, N] += ended
        if ended:
            starts[0, np.int64(at[0, N])] = np.int64(pos)


@kernel("i8(u1[::1], i8, i8, i8[:, ::1], u2[::1], i4[::1], i4[:, ::1])")
def block_starts(
    bits: np.ndarray,
    length: int,
    blocks: int,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
) -> bool:
    """Whether `length` bits, less than a byte of filling aside, are the codes of so many blocks; `starts`[0] then holds where each begins.

    Args:
        bits: uint8, with `PAD` bytes of zeros behind them.
        starts: int32 [2, blocks + 2], of which the second row is scratch.
    """
    at, stops = np.zeros((2, 4), np.uint64), np.full(2, length, np.uint64)
    at[:, ROW], most = START, uint64(blocks)
    middle = uint64(length) >> uint64(4) << uint64(3)
    at[1, POS] = stops[0] = middle
    starts[0, 0], starts[1, 0] = 0, middle
    if not _both(bits, codes, passing, values, at, stops, most, starts):
        return False
    if not _alone(bits, codes, passing, values, at[0], middle, most, starts[0]):
        return False
    met = _meeting(bits, codes, passing, values, at, most, starts)
    if met == -BROKEN:
        return False
    if met < 0:
        if not _alone(bits, codes, passing, values, at[0], uint64(length), most, starts[0]):
            return False
    else:
        # Up to the end, or as far as it is sound: what follows the last block is filling, no code.
        _alone(bits, codes, passing, values, at[1], uint64(length), most, starts[1])
        have = np.int64(at[0, N])
        more = min(np.int64(at[1, N]) - met, blocks - have)
        starts[0, have : have + more + 1] = starts[1, met : met + more + 1]
        at[0, N] = have + more
    return np.int64(at[0, N]) == blocks and 0 <= length - starts[0, blocks] < 8

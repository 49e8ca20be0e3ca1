"""Reads the Huffman codes of a baseline JPEG of several colours from first to last: whether all of its MCUs are there (numba).

As in jpeg_scan.py, values are passed over and two places of the file are read in turns. An MCU has blocks of each colour, of which each
has tables of its own, so the second place has to find which block of an MCU it stands in, too. It starts as if an MCU began there: where
that is wrong, it reads some blocks by tables that are not theirs, its count slips, and it slips on until it is right. It is right where an
MCU of the first place begins at a bit where one of the second has begun.

    phases  uint64 [blocks of an MCU]; from its low bits on: the row of `passing` for codes within this block (AC; 16), that for the
            next block's beginning (DC; 16), this block (8), the next one (8), whether the MCU ends with it (8), its tables (8)
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from shards.format.jpeg_huffman import END, LOOK, LOOK_VALUES
from shards.format.jpeg_scan import BROKEN, window
from shards.format.jpeg_tables import any_code

MARGIN = 256
"""Bits before the end at which turns are left: behind the last code is filling, where the second place would seem to be lost."""
POS, K, ROW, N, PHASE = range(5)
"""Of a place in the file: bits before it, coefficients of its block before it, its row of `passing`, MCUs before it, block of the MCU."""


@njit("UniTuple(u8, 3)(u1[::1], u8, u8, u8, i8[:, ::1], i4[::1])", nogil=True, cache=True)
def _single(
    bits: np.ndarray, pos: int, k: int, table: int, codes: np.ndarray, values: np.ndarray
) -> tuple[int, int, int]:
    """Past one code: the bit behind it, coefficients of its block, and 1 where the block ended, or BROKEN."""
    front, is_dc = window(bits, pos), k == uint64(0)
    half = table << uint64(1) | uint64(is_dc)
    entry = np.int64(values[half << uint64(LOOK_VALUES) | (front >> uint64(64 - LOOK_VALUES))])
    if entry == 0:
        entry = any_code(front, codes[half ^ uint64(1)], is_dc)
    on = uint64(entry >> 8 & 255)
    pos, k = pos + uint64(entry & 63), k + on
    if entry == 0 or (k > uint64(END) and on < uint64(END)):
        return pos, k, uint64(BROKEN)
    return pos, k & uint64(END - 1) if k < uint64(END) else uint64(0), uint64(k >= uint64(END))


@njit(inline="always")
def _on(ends: int, info: int) -> tuple[int, int, int]:
    """Behind codes of the block `info`, of which the last ended it or not: (row, phase, MCUs that ended)."""
    row = info >> (ends << uint64(4)) & uint64(0xFFFF)
    return row, info >> (uint64(32) + (ends << uint64(3))) & uint64(255), info >> uint64(48) & ends


@njit("b1(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[::1], u8[::1], u8, u8, i4[::1])", nogil=True, cache=True)
def _alone(
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    phases: np.ndarray,
    at: np.ndarray,
    stop: int,
    most: int,
    starts: np.ndarray,
) -> bool:
    """Goes on from place `at` up to bit `stop` or `most` MCUs, noting where MCUs begin; False where something is broken."""
    pos, k, row, n, phase = at[POS], at[K], at[ROW], at[N], at[PHASE]
    sound = True
    while sound and pos < stop and n < most:
        front = window(bits, pos)
        for _ in range(3):
            info, entry = phases[phase], uint64(passing[row | front >> uint64(64 - LOOK)])
            on = k + (entry >> uint64(6) & uint64(127))
            if on >= uint64(END):
                pos, k, ended = _single(bits, pos, k, info >> uint64(56), codes, values)
                sound = ended != uint64(BROKEN)
                row, phase, whole = _on(ended & uint64(1), info)
                starts[n + uint64(1)] = pos
                n += whole
                break
            ends = entry >> uint64(13)
            k = on & (ends - uint64(1))
            pos += entry & uint64(63)
            front <<= entry & uint64(63)
            row, phase, whole = _on(ends, info)
            starts[n + uint64(1)] = pos  # overwritten until the MCU ends
            n += whole
            if n >= most:
                break
    at[POS], at[K], at[ROW], at[N], at[PHASE] = pos, k, row, n, phase
    return sound


@njit("b1(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[::1], u8[:, ::1], u8[::1], u8, i4[::1])", nogil=True, cache=True)
def _both(
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    phases: np.ndarray,
    at: np.ndarray,
    stops: np.ndarray,
    most: int,
    starts: np.ndarray,
) -> bool:
    """Two places in turns, up to where the first of them is done; False where the first one's file is broken.

    Where MCUs of the second begin is noted. Where it finds something broken, it is not right yet: it begins anew a bit further on.
    """
    pos, k, row, n, phase = at[0, POS], at[0, K], at[0, ROW], at[0, N], at[0, PHASE]
    pos2, k2, row2, n2, phase2 = at[1, POS], at[1, K], at[1, ROW], at[1, N], at[1, PHASE]
    begin, sound = row, True
    while sound and pos < stops[0] and pos2 < stops[1] and n2 < most:
        front, front2 = window(bits, pos), window(bits, pos2)
        for _ in range(3):
            info, entry = phases[phase], uint64(passing[row | front >> uint64(64 - LOOK)])
            info2, entry2 = phases[phase2], uint64(passing[row2 | front2 >> uint64(64 - LOOK)])
            on, on2 = k + (entry >> uint64(6) & uint64(127)), k2 + (entry2 >> uint64(6) & uint64(127))
            if (on | on2) >= uint64(END):
                if on >= uint64(END):
                    pos, k, ended = _single(bits, pos, k, info >> uint64(56), codes, values)
                    sound = ended != uint64(BROKEN)
                    row, phase, whole = _on(ended & uint64(1), info)
                    n += whole
                if on2 >= uint64(END):
                    before = pos2
                    pos2, k2, ended = _single(bits, pos2, k2, info2 >> uint64(56), codes, values)
                    row2, phase2, whole = _on(ended & uint64(1), info2)
                    starts[n2 + uint64(1)] = pos2
                    n2 += whole
                    if ended == uint64(BROKEN):
                        pos2, k2, row2, n2, phase2 = before + uint64(1), uint64(0), begin, uint64(0), uint64(0)
                        starts[0] = pos2
                break
            ends, ends2 = entry >> uint64(13), entry2 >> uint64(13)
            k, k2 = on & (ends - uint64(1)), on2 & (ends2 - uint64(1))
            pos, pos2 = pos + (entry & uint64(63)), pos2 + (entry2 & uint64(63))
            front <<= entry & uint64(63)
            front2 <<= entry2 & uint64(63)
            row, phase, whole = _on(ends, info)
            n += whole
            row2, phase2, whole = _on(ends2, info2)
            starts[n2 + uint64(1)] = pos2  # overwritten until the MCU ends
            n2 += whole
    at[0, POS], at[0, K], at[0, ROW], at[0, N], at[0, PHASE] = pos, k, row, n, phase
    at[1, POS], at[1, K], at[1, ROW], at[1, N], at[1, PHASE] = pos2, k2, row2, n2, phase2
    return sound


@njit("i8(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[::1], u8[:, ::1], u8, u8, i4[:, ::1])", nogil=True, cache=True)
def _meeting(
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    phases: np.ndarray,
    at: np.ndarray,
    length: int,
    most: int,
    starts: np.ndarray,
) -> int:
    """Lets the first place go on to an MCU that the second has begun too: which of the second's that is.

    -1 where there is none, -BROKEN where the file is broken before.
    """
    number, have = 0, np.int64(at[1, N])
    while at[0, N] < most and at[0, POS] < length:
        if not _alone(bits, codes, passing, values, phases, at[0], length, at[0, N] + uint64(1), starts[0]):
            return -BROKEN
        while number <= have and starts[1, number] < np.int64(at[0, POS]):
            number += 1
        if number > have:
            return -1
        if starts[1, number] == np.int64(at[0, POS]) and at[0, PHASE] == uint64(0) and at[0, K] == uint64(0):
            return number
    return -1


@njit("b1(u1[::1], i8, i8, i8[:, ::1], u2[::1], i4[::1], u8[::1], i4[:, ::1], u8[:, ::1])", nogil=True, cache=True)
def all_there(
    bits: np.ndarray,
    length: int,
    mcus: int,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    phases: np.ndarray,
    starts: np.ndarray,
    at: np.ndarray,
) -> bool:
    """Whether `length` bits, less than a byte of filling aside, are the codes of so many MCUs.

    Args:
        bits: uint8, with `jpeg_huffman.PAD` bytes of zeros behind them.
        codes, passing, values: those of jpeg_tables.py, of one pair of tables after the other.
        starts: int32 [2, mcus + BEYOND], scratch.
        at: uint64 [3, 5], scratch.
    """
    stops, most = at[2], uint64(mcus)
    at[:] = 0
    at[:, ROW] = phases[len(phases) - 1] >> uint64(16) & uint64(0xFFFF)
    middle = uint64(length) >> uint64(4) << uint64(3)
    at[1, POS] = stops[0] = middle
    stops[1] = max(length - MARGIN, 0)
    starts[1, 0] = middle
    if not _both(bits, codes, passing, values, phases, at, stops, most, starts[1]):
        return False
    if not _alone(bits, codes, passing, values, phases, at[0], middle, most, starts[0]):
        return False
    met = _meeting(bits, codes, passing, values, phases, at, uint64(length), most, starts)
    if met == -BROKEN:
        return False
    if met < 0:
        if not _alone(bits, codes, passing, values, phases, at[0], uint64(length), most, starts[0]):
            return False
        return at[0, N] == most and 0 <= length - np.int64(at[0, POS]) < 8
    # MCUs of the second up to the last one: more than are noted for are a file that is left to a decoder.
    last = met + mcus - np.int64(at[0, N])
    if not met <= last <= mcus:
        return False
    _alone(bits, codes, passing, values, phases, at[1], uint64(length), uint64(last), starts[1])
    return np.int64(at[1, N]) >= last and 0 <= length - starts[1, last] < 8

"""Tables by which the Huffman codes of a JPEG are read (ITU-T T.81, F.2.2), compiled by numba (extra `numba`).

    codes   of each code, as int64 [2, 307], DC and AC: 17 x (first code of a length, how many, where their symbols begin), then the
            symbols
    passing uint16 [2 << LOOK]: what so many bits say where values do not matter, as many codes as begin within them
    values  int32 [2 << LOOK_VALUES]: the one code that so many bits begin with, and its value

In tables of bits the first half is for codes within a block (AC), the second for a block's beginning (DC). An entry of `passing` holds,
from its low bits on: how many bits of the file it takes (6), how many coefficients it goes on (7; 64 or more: look at `values`), whether
the block ends (1). An entry of `values`: bits (6, and 2 free), coefficients (8; 64 and more where the block ends), the value (16 and
sign); 0 where the code and its value have more bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

LOOK, LOOK_VALUES = 13, 12
MOST = 22
"""Bits of the file that an entry of `passing` takes at most: three of them and another look-up are in the 57 bits of a window."""
END = 64
"""Coefficients that the end of a block goes on: beyond the last one."""
LARGEST_DC = 11  # bits of a difference of 8-bit samples
SYMBOLS = 51  # where they begin in a row of `codes`

Tables = tuple[np.ndarray, np.ndarray, np.ndarray]


@lru_cache(maxsize=64)
def tables(dc: bytes, ac: bytes) -> Tables | None:
    """(codes, passing, values) of two tables as they stand in a DHT segment (16 counts, then the symbols); None of odd ones."""
    rows = [canonical(dc, is_dc=True), canonical(ac, is_dc=False)]
    codes = np.zeros((2, SYMBOLS + 256), np.int64)
    for row, found in zip(codes, rows, strict=True):
        if found is None:
            return None
        row[: len(found)] = found
    values, passing = np.zeros(2 << LOOK_VALUES, np.int32), np.zeros(2 << LOOK, np.uint16)
    fill(codes, values, passing)
    return codes, passing, values


def canonical(code: bytes, is_dc: bool) -> np.ndarray | None:
    """A row of `codes`; None where it is not surely a table that decoders take."""
    counts, symbols = np.frombuffer(code[:16], np.uint8).astype(np.int64), np.frombuffer(code[16:], np.uint8)
    if counts.sum() != len(symbols) or not len(symbols) or (is_dc and symbols.max() > LARGEST_DC):
        return None
    lengths = np.zeros((17, 3), np.int64)
    first = at = 0
    for n in range(1, 17):
        lengths[n] = first, counts[n - 1], at
        if first + counts[n - 1] > (1 << n) - 1:  # the code of ones alone is kept free
            return None
        first, at = 2 * (first + counts[n - 1]), at + counts[n - 1]
    return np.concatenate([lengths.ravel(), symbols])


@njit("i8(u8, i8[::1], b1)", nogil=True, cache=True)
def any_code(front: int, row: np.ndarray, is_dc: bool) -> int:
    """An entry of `values` for a code of any length at the front of 64 bits, of which 32 are known; 0 where there is none."""
    sixteen = np.int64(front >> np.uint64(48))
    for n in range(1, 17):
        code = (sixteen >> (16 - n)) - row[3 * n]
        if 0 <= code < row[3 * n + 1]:
            symbol = row[SYMBOLS + row[3 * n + 2] + code]
            size = symbol if is_dc else symbol & 15
            on = 1 if is_dc else (symbol >> 4) + 1
            if size == 0:
                return (END if on < 16 and not is_dc else on) << 8 | n
            value = np.int64((front << np.uint64(n)) >> np.uint64(64 - size))
            if value < 1 << (size - 1):
                value -= (1 << size) - 1
            return value << 16 | on << 8 | n + size
    return 0


@njit("(i8[::1], i4[::1])", nogil=True, cache=True)
def first_codes(row: np.ndarray, out: np.ndarray) -> None:
    """Of each `LOOK` bits the code that they begin with: its symbol (above 5 bits) and how many bits it has; 0 where it is longer."""
    out[:] = 0
    for n in range(1, LOOK + 1):
        for i in range(row[3 * n + 1]):
            begin = (row[3 * n] + i) << (LOOK - n)
            out[begin : begin + (1 << (LOOK - n))] = row[SYMBOLS + row[3 * n + 2] + i] << 5 | n


@njit("UniTuple(i8, 2)(i8, b1)", nogil=True, cache=True)
def meant(symbol: int, is_dc: bool) -> tuple[int, int]:
    """(bits of the value, coefficients that it goes on)"""
    if is_dc:
        return symbol, 1
    on = (symbol >> 4) + 1
    return symbol & 15, END if symbol & 15 == 0 and on < 16 else on


@njit("i8(i8, i4[:, ::1], b1)", nogil=True, cache=True)
def _together(bits: int, first: np.ndarray, is_dc: bool) -> int:
    """An entry of `passing`: as many codes as stand whole in the bits, values aside, up to the end of a block."""
    taken, on, ends = 0, 0, 0
    while taken < LOOK and not ends:
        begins = is_dc and on == 0
        code = first[0 if begins else 1, (bits << taken) & ((1 << LOOK) - 1)]
        size, step = meant(code >> 5, begins)
        more = (code & 31) + size
        if code == 0 or taken + (code & 31) > LOOK or taken + more > MOST or on + step >= 2 * END:
            break
        if step < END and on + step >= END:
            break
        taken += more
        if step >= END:
            ends = 1
        else:
            on += step
    return (ends << 7 | on) << 6 | taken if taken else END << 6


@njit("i8(i8, i4[::1], b1)", nogil=True, cache=True)
def _valued(bits: int, first: np.ndarray, is_dc: bool) -> int:
    """An entry of `values`, as `any_code` has it."""
    code = first[bits << (LOOK - LOOK_VALUES)]
    size, on = meant(code >> 5, is_dc)
    taken = (code & 31) + size
    if code == 0 or taken > LOOK_VALUES:
        return 0
    value = (bits >> (LOOK_VALUES - taken)) & ((1 << size) - 1)
    if size and value < 1 << (size - 1):
        value -= (1 << size) - 1
    return value << 16 | on << 8 | taken


@njit("(i8[:, ::1], i4[::1], u2[::1])", nogil=True, cache=True)
def fill(codes: np.ndarray, values: np.ndarray, passing: np.ndarray) -> None:
    """Fills `values` and `passing`."""
    first = np.empty((2, 1 << LOOK), np.int32)
    for half in range(2):
        first_codes(codes[half], first[half])
    for half in range(2):
        for bits in range(1 << LOOK_VALUES):
            values[half << LOOK_VALUES | bits] = _valued(bits, first[1 - half], half == 1)
        for bits in range(1 << LOOK):
            passing[half << LOOK | bits] = _together(bits, first, half == 1)

"""Compiled by numba: the rows of jpeg_states.py, made of Huffman tables."""

from __future__ import annotations

import numpy as np

from compiled.kernel import kernel
from shards.format.jpeg_huffman import LOOK, SYMBOLS
from shards.format.jpeg_states import (
    BEGIN,
    BROKEN,
    ENDS,
    FULL,
    LONGEST,
    LOOK_ROWS,
    MOST_TAKEN,
    NEXT,
    OF_A_PAIR,
    ON,
    PAIRS,
    SINGLE,
    SIZE,
    STEPS,
    TAKEN,
    WAITING,
)
from shards.format.jpeg_tables import first_codes, meant


@kernel("i8(i8[::1], b1, i8, i8, u4[:, ::1], i4[::1])")
def _behind_long(code: np.ndarray, is_dc: bool, many: int, used: int, rows: np.ndarray, long: np.ndarray) -> int:
    """Makes rows for what follows the first bits of codes that are longer than a look; `long`: which row that is, by these bits, or 0.

    How many rows there are then, -1 where there is no room.
    """
    long[:] = 0
    for n in range(LOOK_ROWS + 1, LONGEST + 1):
        more = n - LOOK_ROWS
        for i in range(code[3 * n + 1]):
            bits = code[3 * n] + i
            front, begin = bits >> more, (bits & ((1 << more) - 1)) << (LOOK_ROWS - more)
            if long[front] == 0:
                if used == len(rows):
                    return -1
                rows[used] = 1 << ON | BROKEN << NEXT if is_dc else FULL | SINGLE
                long[front], used = used, used + 1
            size, on = meant(code[SYMBOLS + code[3 * n + 2] + i], is_dc)
            entry = (1 << ENDS if on << ON >= FULL else on << ON) | more + size | SINGLE | many << NEXT
            rows[long[front], begin : begin + (1 << (LOOK_ROWS - more))] = entry
    return used


@kernel("i8(i8, b1, i8)")
def _one_code(found: int, is_dc: bool, known: int) -> int:
    """An entry of the code that so many bits begin with (see `first_codes`); 0 where it is not whole, -1 where its value is too long."""
    n = found & 31
    if n == 0 or n > known:
        return 0
    size, on = meant(found >> 5, is_dc)
    if n + size > MOST_TAKEN:
        return -1
    return n + size | (1 << ENDS if on << ON >= FULL else on << ON)


@kernel("i8(i8, i8, i8, i4[::1])")
def _with_more(entry: int, bits: int, known: int, several: np.ndarray) -> int:
    """An entry with those of the codes behind it."""
    left = known - (entry & TAKEN)
    if entry <= 0 or entry >> ENDS or left <= 0:
        return entry
    both = entry + several[1 << left | bits & ((1 << left) - 1)]
    return entry if both & FULL or both & TAKEN > MOST_TAKEN else both


@kernel("(i4[::1], i4[::1])")
def _several_codes(first: np.ndarray, several: np.ndarray) -> None:
    """Entries, less the next row, of as many codes within a block as stand whole in n bits, at 2^n and those bits."""
    for known in range(1, LOOK_ROWS + 1):
        for bits in range(1 << known):
            entry = _one_code(first[bits << (LOOK - known)], False, known)
            several[1 << known | bits] = _with_more(entry, bits, known, several) if entry > 0 else 0


@kernel("i8(i8, b1, i8, i8, u4[:, ::1], i4[::1])")
def _behind_value(found: int, is_dc: bool, many: int, used: int, rows: np.ndarray, values: np.ndarray) -> int:
    """Makes a row for the value of a code, where there is none; how many rows there are then, -1 where there is no room."""
    size, on = meant(found >> 5, is_dc)
    if values[size * STEPS + on] == 0:
        if used == len(rows):
            return -1
        rows[used] = size | on << ON | SINGLE | many << NEXT
        values[size * STEPS + on], used = used, used + 1
    return used


@kernel("i8(i8[:, ::1], i4[:, ::1], i4[:, ::1], u4[:, ::1])")
def fill_rows(codes: np.ndarray, first: np.ndarray, scratch: np.ndarray, rows: np.ndarray) -> int:
    """Fills the rows of several pairs of tables; how many there are, -1 where there is no room for them.

    Args:
        codes: int64 [2 x pairs, SYMBOLS + 256].
        first: int32 [2, 1 << LOOK], scratch.
        scratch: int32 [3, 2 x SIZE].
        rows: uint32 [MOST_ROWS, SIZE].
    """
    long, values, several = scratch[0], scratch[1], scratch[2]
    rows[WAITING], rows[BROKEN] = WAITING << NEXT, FULL | SINGLE
    used = PAIRS + OF_A_PAIR * (len(codes) // 2)
    for pair in range(len(codes) // 2):
        many = PAIRS + OF_A_PAIR * pair
        single, begin = many + 1, many + BEGIN
        values[:] = 0
        for i in range(2):
            first_codes(codes[2 * pair + i], first[i])
        _several_codes(first[1], several)
        for is_dc in (False, True):
            row = 0 if is_dc else 1
            used = _behind_long(codes[2 * pair + row], is_dc, many, used, rows, long)
            if used < 0:
                return -1
            for bits in range(SIZE):
                found = first[row, bits << (LOOK - LOOK_ROWS)]
                alone = _one_code(found, is_dc, LOOK_ROWS)
                entry = _with_more(alone, bits, LOOK_ROWS, several) | many << NEXT
                if alone < 0:
                    used = _behind_value(found, is_dc, many, used, rows, values)
                    if used < 0:
                        return -1
                    size, on = meant(found >> 5, is_dc)
                    entry = alone = found & 31 | values[size * STEPS + on] << NEXT
                elif alone > 0:
                    alone |= SINGLE | single << NEXT
                elif long[bits]:
                    entry = alone = LOOK_ROWS | long[bits] << NEXT
                else:
                    entry, alone = 1 << ON | BROKEN << NEXT if is_dc else FULL, FULL | SINGLE
                rows[begin if is_dc else many, bits] = entry
                if not is_dc:
                    rows[single, bits] = alone
    return used

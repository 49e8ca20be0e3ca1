"""Tables by which the Huffman codes of a JPEG are read (jpeg_huffman.py), compiled by numba (extra `numba`)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from compiled.kernel import kernel
from shards.format.jpeg_huffman import END, LOOK, LOOK_VALUES, MOST, SYMBOLS, codes_of

Tables = tuple[np.ndarray, np.ndarray, np.ndarray]


@lru_cache(maxsize=64)
def tables(dc: bytes, ac: bytes) -> Tables | None:
    """(codes, passing, values) of two tables as they stand in a DHT segment; None of odd ones."""
    if (codes := codes_of(dc, ac)) is None:
        return None
    values, passing = np.zeros(2 << LOOK_VALUES, np.int32), np.zeros(2 << LOOK, np.uint16)
    fill(codes, np.empty((2, 1 << LOOK), np.int32), values, passing)
    return codes, passing, values


@kernel("i8(u8, i8[::1], b1)")
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


@kernel("(i8[::1], i4[::1])")
def first_codes(row: np.ndarray, out: np.ndarray) -> None:
    """Of each `LOOK` bits the code that they begin with: its symbol (above 5 bits) and how many bits it has; 0 where it is longer."""
    out[:] = 0
    for n in range(1, LOOK + 1):
        for i in range(row[3 * n + 1]):
            begin = (row[3 * n] + i) << (LOOK - n)
            out[begin : begin + (1 << (LOOK - n))] = row[SYMBOLS + row[3 * n + 2] + i] << 5 | n


@kernel("UniTuple(i8, 2)(i8, b1)")
def meant(symbol: int, is_dc: bool) -> tuple[int, int]:
    """(bits of the value, coefficients that it goes on)"""
    if is_dc:
        return symbol, 1
    on = (symbol >> 4) + 1
    return symbol & 15, END if symbol & 15 == 0 and on < 16 else on


@kernel("i8(i8, i4[:, ::1], b1)")
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
    return ends << 15 | on << 7 | taken if taken else END << 7


@kernel("i8(i8, i4[::1], b1)")
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


@kernel("(i8[:, ::1], i4[:, ::1], i4[::1], u2[::1])")
def fill(codes: np.ndarray, first: np.ndarray, values: np.ndarray, passing: np.ndarray) -> None:
    """Fills `values` and `passing`; `first`: scratch, [2, 1 << LOOK]."""
    for half in range(2):
        first_codes(codes[half], first[half])
    for half in range(2):
        for bits in range(1 << LOOK_VALUES):
            values[half << LOOK_VALUES | bits] = _valued(bits, first[1 - half], half == 1)
        for bits in range(1 << LOOK):
            passing[half << LOOK | bits] = _together(bits, first, half == 1)

"""Huffman tables of a JPEG in canonical form (ITU-T T.81, C.2 and F.2.2), and what the tables of machine code made of them are like.

    codes   of each code, as int64 [2, 307], DC and AC: 17 x (first code of a length, how many, where their symbols begin), then the
            symbols
    passing uint16 [2 << LOOK]: what so many bits say where values do not matter, as many codes as begin within them
    values  int32 [2 << LOOK_VALUES]: the one code that so many bits begin with, and its value

In tables of bits the first half is for codes within a block (AC), the second for a block's beginning (DC). An entry of `passing` holds,
from its low bits on: how many bits of the file it takes (7), how many coefficients it goes on (7, and 1 free; 64 or more: look at
`values`), whether the block ends (1); the fields of three entries can be added up. An entry of `values`: bits (6, and 2 free),
coefficients (8; 64 and more where the block ends), the value (16 and sign); 0 where the code and its value have more bits.
"""

from __future__ import annotations

import numpy as np

LOOK, LOOK_VALUES = 13, 12
MOST = 22
"""Bits of the file that an entry of `passing` takes at most: three of them and another look-up are in the 57 bits of a window."""
END = 64
"""Coefficients that the end of a block goes on: beyond the last one."""
LARGEST_DC = 11  # bits of a difference of 8-bit samples
SYMBOLS = 51  # where they begin in a row of `codes`
PAD = 16
"""Bytes of zeros behind the bits, so that windows may reach beyond."""
STRIDE = 64
"""Bytes that are copied at a time, so that as many more must have room behind the bits."""
START = 1 << LOOK
MOST_BITS = 1 << 30
"""Of a file: places of bits are int32."""
PLACES, KEPT = 3, 8
"""Of a file, which are read in turns, and what is kept of each."""
BEYOND = 8
"""MCUs that are noted beyond the last one, at most."""


def codes_of(dc: bytes, ac: bytes) -> np.ndarray | None:
    """`codes` of two tables as they stand in a DHT segment (16 counts, then the symbols); None of odd ones."""
    codes = np.zeros((2, SYMBOLS + 256), np.int64)
    for row, found in zip(codes, [canonical(dc, is_dc=True), canonical(ac, is_dc=False)], strict=True):
        if found is None:
            return None
        row[: len(found)] = found
    return codes


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

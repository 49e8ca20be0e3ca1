"""What is called of the machine code that reads JPEGs (numba): functions of C, which are called without numba (compiled/objects.py)."""

from __future__ import annotations

import numpy as np
from numba import carray, cfunc

from shards.format.jpeg_huffman import BEYOND, KEPT, LOOK, LOOK_VALUES, PAD, PLACES, STRIDE, SYMBOLS
from shards.format.jpeg_mcus import all_there
from shards.format.jpeg_scan import unstuffed
from shards.format.jpeg_tables import fill

ROW = SYMBOLS + 256
_BYTES, _CODES, _STARTS, _PASSING, _LONGS = (
    "CPointer(u1)",
    "CPointer(i8)",
    "CPointer(i4)",
    "CPointer(u2)",
    "CPointer(u8)",
)


@cfunc(f"i8({_CODES}, {_STARTS}, {_STARTS}, {_PASSING})")
def fill_tables(codes: np.ndarray, first: np.ndarray, values: np.ndarray, passing: np.ndarray) -> int:
    """`jpeg_tables.fill`; 0."""
    fill(
        carray(codes, (2, ROW)),
        carray(first, (2, 1 << LOOK)),
        carray(values, 2 << LOOK_VALUES),
        carray(passing, 2 << LOOK),
    )
    return 0


@cfunc(
    f"i8({_BYTES}, i8, i8, i8, {_BYTES}, {_CODES}, {_PASSING}, {_STARTS}, i8, {_LONGS}, i8, {_STARTS}, {_LONGS})",
)
def whole(
    data: np.ndarray,
    begin: int,
    end: int,
    mcus: int,
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    pairs: int,
    phases: np.ndarray,
    blocks: int,
    starts: np.ndarray,
    at: np.ndarray,
) -> int:
    """1 where the bytes of a scan, from `begin` to `end` of a file, are the codes of so many MCUs; else 0.

    Args:
        bits: scratch, end - begin + PAD + STRIDE bytes.
        codes, passing, values: of so many pairs of tables, one after the other.
        phases: of so many blocks of an MCU.
        starts, at: see `jpeg_mcus.all_there`.
    """
    size = end - begin
    room = carray(bits, size + PAD + STRIDE)
    length = np.int64(unstuffed(carray(data, end)[begin:], room))
    if length < 0:
        return 0
    room[length:] = 0
    there = all_there(
        room,
        8 * length,
        mcus,
        carray(codes, (2 * pairs, ROW)),
        carray(passing, pairs * (2 << LOOK)),
        carray(values, pairs * (2 << LOOK_VALUES)),
        carray(phases, 2 * blocks),
        carray(starts, (PLACES, mcus + BEYOND)),
        carray(at, (PLACES + 1, KEPT)),
    )
    return 1 if there else 0


FUNCTIONS = (fill_tables, whole)

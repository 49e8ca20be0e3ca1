"""What is called of the machine code that reads JPEGs at many places at once, as jpeg_entry.py; only for processors that are wide."""

from __future__ import annotations

import numpy as np
from numba import carray, cfunc

from compiled.wide import LANES
from shards.format.jpeg_entry import ROW
from shards.format.jpeg_huffman import LOOK, PAD, STRIDE
from shards.format.jpeg_lanes import all_there_in_lanes, unstuffed_wide
from shards.format.jpeg_rows import fill_rows
from shards.format.jpeg_states import BLOCKS, KEPT, MOST_ROWS, SIZE

_BYTES, _CODES, _FIRST, _ROWS, _STATES = "CPointer(u1)", "CPointer(i8)", "CPointer(i4)", "CPointer(u4)", "CPointer(u8)"


@cfunc(f"i8({_CODES}, i8, {_FIRST}, {_FIRST}, {_ROWS})")
def fill_wide(codes: np.ndarray, pairs: int, first: np.ndarray, scratch: np.ndarray, rows: np.ndarray) -> int:
    """`jpeg_rows.fill_rows` of so many pairs of tables."""
    return int(
        fill_rows(
            carray(codes, (2 * pairs, ROW)),
            carray(first, (2, 1 << LOOK)),
            carray(scratch, (3, 2 * SIZE)),
            carray(rows, (MOST_ROWS, SIZE)),
        )
    )


@cfunc(f"i8({_BYTES}, i8, i8, i8, i8, {_BYTES}, {_ROWS}, {_STATES}, {_STATES})")
def whole_wide(
    data: np.ndarray,
    begin: int,
    end: int,
    blocks: int,
    of_mcu: int,
    bits: np.ndarray,
    rows: np.ndarray,
    states: np.ndarray,
    kept: np.ndarray,
) -> int:
    """1 where the bytes of a scan, from `begin` to `end` of a file, are the codes of so many blocks; else 0.

    Args:
        bits: scratch, end - begin + PAD + STRIDE bytes.
        of_mcu, rows, states, kept: see `jpeg_lanes.all_there_in_lanes`.
    """
    room = carray(bits, end - begin + PAD + STRIDE)
    length = np.int64(unstuffed_wide(carray(data, end)[begin:], room))
    if length < 0:
        return 0
    room[length:] = 255
    there = all_there_in_lanes(
        room,
        8 * length,
        blocks,
        of_mcu,
        carray(rows, (MOST_ROWS + 1, SIZE)),
        carray(states, 2 * BLOCKS + 1),
        carray(kept, (KEPT, LANES)),
    )
    return 1 if there else 0


FUNCTIONS = (fill_wide, whole_wide)

"""Reads the Huffman codes of a baseline JPEG at many places at once (AVX-512): whether all of its MCUs are there.

The file is cut into as many parts as there are lanes. Of each but the first it is not known where its first MCU begins: its lane starts
some blocks before it, as if an MCU began there, since codes of JPEG find back by themselves within a few blocks, and those of MCUs with
blocks of several colours (jpeg_mcus.py) after some more. The first MCU that it comes to in its part is right if the lane before it, which
goes on to the end of its own part and of the MCU there, comes to the same bit. The first lane is right, so each is right if the one before
it is; where it was not, its part is read again from that bit, at one place.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types, uint64

from compiled.kernel import kernel
from compiled.lanes import (
    Lanes,
    at_least,
    but,
    chosen,
    either,
    entries,
    every,
    followed,
    has,
    load,
    numbers,
    store,
    table,
    where,
    windows,
)
from compiled.vectors import copied_some, equal, lowest
from compiled.wide import LANES
from shards.format.jpeg_huffman import END, STRIDE
from shards.format.jpeg_scan import window
from shards.format.jpeg_states import (
    BEFORE,
    BEGAN,
    BLOCKS,
    CAME,
    COEFFICIENTS,
    ENDED,
    ENDED_BLOCKS,
    ENDS,
    FLAGS,
    FULL,
    LOOK_ROWS,
    NEAR,
    NEXT,
    NEXT_PART,
    ON,
    PART,
    POS,
    ROWS,
    RUNNING,
    SINGLE,
    STATE,
    SUMS,
    TAKEN,
    WAITS,
)

OVERLAP, OF_EACH, PLAIN, MOST = 8, 12, 128, 8
"""Blocks before its part that a lane starts at: of MCUs of one block, and for each block of others; most find back within them.

Full blocks have no code for their end, by which places find back: of blocks of more bits than PLAIN there are more, up to MOST times.
"""
MARGIN = 256
"""Bits before the end up to which lanes go: behind the last code is filling."""
NEVER = 0xFFFFFFFFFFFFFFFF
SURE = 57
"""Bits of a window that are of the file."""
_OF_STATE = 2 * WAITS - 1


@kernel(types.int64(types.Array(types.uint8, 1, "C", readonly=True), types.uint8[::1]))
def unstuffed_wide(codes: np.ndarray, out: np.ndarray) -> int:
    """As `jpeg_scan.unstuffed`."""
    n, i, size, stride, was_mark = uint64(0), uint64(0), uint64(len(codes)), uint64(STRIDE), uint64(0)
    while i + stride <= size:
        marks = equal(codes, i, np.uint8(255))
        behind = marks << uint64(1) | was_mark
        if behind & ~equal(codes, i, np.uint8(0)):
            return -1
        n += copied_some(codes, i, out, n, ~behind)
        i, was_mark = i + stride, marks >> uint64(63)
    while i < size:
        if was_mark and codes[i] != 0:
            return -1
        if not was_mark:
            out[n] = codes[i]
            n += uint64(1)
        was_mark = uint64(not was_mark and codes[i] == 255)
        i += uint64(1)
    return -1 if was_mark else n


@njit(inline="always")
def _look(
    rows: np.ndarray, w: Lanes, state: Lanes, sums: Lanes, wrong: Lanes, going: Lanes, near: Lanes
) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """Past what the first bits of the windows say: (windows, states, sums, coefficients that full blocks have too many)."""
    entry = entries(rows, followed(state >> every(uint64(NEXT)), w, every(uint64(LOOK_ROWS))))
    more = sums + entry
    full = has(more, every(uint64(FULL)))
    ended = full & has(entry, every(uint64(SINGLE)))
    back = but(full, ended)  # they look again in the row of single codes
    taken = where(back, every(uint64(0)), entry)
    w = w << taken
    next_ = where(
        back, state | every(uint64(1 << NEXT)), entry & every(uint64(ROWS)) | state & every(uint64(_OF_STATE))
    )
    sums = where(back, sums, more)
    sums = where(ended, sums + every(uint64(FULL)), sums)  # one block more: it is carried
    wrong = where(ended, wrong | sums, wrong)
    of_code = has(taken, every(uint64(1 << ENDS)))
    sums = where(of_code, sums & every(uint64(NEVER - COEFFICIENTS)), sums)
    return w, where(either(of_code, ended), chosen(going, near, state), next_), sums, wrong


@kernel("(u8[:, ::1], u8, u8, u8)")
def _settle(kept: np.ndarray, start: int, waiting: int, broken: int) -> None:
    """Lets lanes that wait or have found something broken go on."""
    todo = (waiting | broken) & kept[FLAGS, RUNNING]
    while todo:
        lane = lowest(todo)
        mine = uint64(1) << lane
        todo ^= mine
        before, pos = kept[FLAGS, BEFORE] & mine, kept[POS, lane]
        kept[STATE, lane] = start
        if broken & mine and before and pos < kept[NEXT_PART, lane]:
            # It is not right yet, and begins anew a bit further on.
            kept[POS, lane], kept[SUMS, lane] = pos + uint64(1), uint64(0)
        elif broken & mine:
            kept[BEGAN, lane] = uint64(NEVER)
            kept[FLAGS, RUNNING] ^= mine
        elif pos >= kept[PART, lane] and before:
            kept[BEGAN, lane], kept[ENDED, lane], kept[PART, lane] = pos, uint64(0), kept[NEXT_PART, lane]
            kept[FLAGS, BEFORE] ^= mine
        elif pos >= kept[PART, lane]:
            kept[CAME, lane] = pos
            kept[FLAGS, RUNNING] ^= mine
        if not kept[FLAGS, RUNNING] & mine:
            kept[POS, lane], kept[SUMS, lane], kept[STATE, lane] = uint64(0), uint64(0), uint64(WAITS)


@njit(inline="always")
def _parts(kept: np.ndarray, length: int, overlap: int, start: int) -> None:
    """Where lanes begin."""
    kept[:] = uint64(0)
    for lane in range(LANES):
        part, next_ = uint64(length * lane // LANES), uint64(length * (lane + 1) // LANES)
        kept[POS, lane] = part - min(part, uint64(overlap))
        kept[PART, lane], kept[NEXT_PART, lane], kept[STATE, lane] = part if lane else next_, next_, start
    kept[FLAGS, RUNNING] = uint64((1 << LANES) - 1)
    kept[FLAGS, BEFORE] = uint64((1 << LANES) - 2)


@njit(inline="always")
def _overlap(bits: int, of_mcu: int) -> int:
    """Bits before its part that a lane starts at, of blocks of so many."""
    more = max(bits, PLAIN)
    if of_mcu == 1:
        return OVERLAP * bits * min(more * more * more, MOST * PLAIN**3) // PLAIN**3
    return OF_EACH * of_mcu * bits * min(more, MOST * PLAIN) // PLAIN


@kernel("UniTuple(i8, 2)(u1[::1], u4[:, ::1], u8[::1], i8, i8, i8)")
def _at_one_place(
    bits: np.ndarray, rows: np.ndarray, states: np.ndarray, pos: int, until: int, most: int
) -> tuple[int, int]:
    """From an MCU to the first at or behind bit `until` or `most` blocks: (where it begins, blocks between them, -1 for broken)."""
    state, k, blocks, at_mcu = np.int64(states[2 * BLOCKS]), 0, 0, True
    while not at_mcu or (pos < until and blocks < most):
        front = window(bits, uint64(pos)) >> uint64(64 - LOOK_ROWS)
        entry = np.int64(rows[state >> NEXT, front])
        k += entry >> ON & (2 * END - 1)
        at_mcu, full = False, k >= END
        if full and not entry & SINGLE:
            k, state = k - (entry >> ON & (2 * END - 1)), state | 1 << NEXT
            continue
        if full and k > END:
            return pos, -1
        pos += entry & TAKEN
        if full or entry & ENDED_BLOCKS:
            state, k, blocks = np.int64(states[state & (BLOCKS - 1)]), 0, blocks + 1
            at_mcu = state & (BLOCKS - 1) == 0
        else:
            state = entry >> NEXT << NEXT | state & (BLOCKS - 1)
    return pos, blocks


@kernel("b1(u1[::1], i8, i8, i8, u4[:, ::1], u8[::1], u8[:, ::1])")
def all_there_in_lanes(
    bits: np.ndarray, length: int, blocks: int, of_mcu: int, rows: np.ndarray, states: np.ndarray, kept: np.ndarray
) -> bool:
    """Whether `length` bits, less than a byte of filling aside, are the codes of so many blocks.

    Args:
        bits: uint8, with `jpeg_huffman.PAD` bytes of 255 behind them, which are broken codes.
        of_mcu: blocks of an MCU.
        rows: uint32, of jpeg_rows.py, with a row more than is used.
        states: of jpeg_states.py.
        kept: uint64 [KEPT, LANES], scratch.
    """
    start = states[2 * BLOCKS]
    _parts(kept, max(length - MARGIN, 0), _overlap(length // blocks, of_mcu), start)
    going, near = table(states), table(states[BLOCKS:])
    pos, state, part = load(kept[POS]), load(kept[STATE]), load(kept[PART])
    sums = ended = every(uint64(0))
    while kept[FLAGS, RUNNING]:
        w, wrong = windows(bits, pos), every(uint64(0))
        state = where(at_least(pos + every(uint64(SURE)), part), state | every(uint64(NEAR)), state)
        w, state, sums, wrong = _look(rows, w, state, sums, wrong, going, near)
        w, state, sums, wrong = _look(rows, w, state, sums, wrong, going, near)
        w, state, sums, wrong = _look(rows, w, state, sums, wrong, going, near)
        pos, ended = pos + (sums & every(uint64(TAKEN))), ended + (sums & every(uint64(ENDED_BLOCKS)))
        sums = sums & every(uint64(COEFFICIENTS))
        waiting, broken = numbers(has(state, every(uint64(WAITS)))), numbers(has(wrong, every(uint64(COEFFICIENTS))))
        if (waiting | broken) & kept[FLAGS, RUNNING]:
            store(kept[POS], pos)
            store(kept[STATE], state)
            store(kept[SUMS], sums)
            store(kept[ENDED], ended)
            _settle(kept, start, waiting, broken)
            pos, state, part = load(kept[POS]), load(kept[STATE]), load(kept[PART])
            sums, ended = load(kept[SUMS]), load(kept[ENDED])
    found, came = 0, 0
    for lane in range(LANES):
        if kept[BEGAN, lane] == uint64(came):
            found, came = found + np.int64(kept[ENDED, lane] >> uint64(ENDS)), np.int64(kept[CAME, lane])
        else:
            came, more = _at_one_place(bits, rows, states, came, np.int64(kept[NEXT_PART, lane]), blocks - found)
            if more < 0:
                return False
            found += more
    came, more = _at_one_place(bits, rows, states, came, length, blocks - found)
    return found + more == blocks and more >= 0 and 0 <= length - came < 8

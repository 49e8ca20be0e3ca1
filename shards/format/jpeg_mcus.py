"""Reads the Huffman codes of a baseline JPEG from first to last: whether all of its MCUs are there (numba).

As in jpeg_scan.py, values are passed over, and several places of the file are read in turns: three. An MCU has blocks of each colour, of
which each has tables of its own, so the places within the file have to find which block of an MCU they stand in, too. They start as if an
MCU began there: where that is wrong, they read some blocks by tables that are not theirs, their count slips, and it slips on until it is
right. It is right where an MCU of the place before begins at a bit where one of theirs has begun.

Long because: the three places are written out side by side; in a loop over them their states would lie in memory, not in registers.

    phases  uint64 [2 x blocks of an MCU]; from its low bits on: the row of `passing` for codes within this block (AC; 16), that for the
            next block's beginning (DC; 16), this block (8), the next one (8), whether the MCU ends with it (8), its tables (8); and
            for each once more how to go on, where it does not end (32) and where it does (32): the row (16) and the block (16)
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from compiled.kernel import kernel
from shards.format.jpeg_huffman import END, KEPT, LOOK, LOOK_VALUES, PLACES
from shards.format.jpeg_scan import BROKEN, window
from shards.format.jpeg_tables import any_code

MARGIN = 256
"""Bits before the end at which turns are left: behind the last code is filling, where the second place would seem to be lost."""
NOTED, LEAST = 144, 16
"""Blocks, and MCUs at least, of the places within a file of which it is noted where they begin: within them they have to be right."""
POS, K, ROW, N, PHASE, ENDS, ON, FOUND = range(KEPT)
"""Of a place in the file: bits before it, coefficients of its block before it, its row of `passing`, MCUs before it, block of the MCU;
blocks that ended, coefficients that its next codes go on to, and MCUs that are noted."""


# As `window`, put in place where it is called.
@njit(inline="always")
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


@kernel("b1(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[::1], u8[::1], u8, u8, i4[::1])")
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
            on = k + (entry >> uint64(7) & uint64(127))
            if on >= uint64(END):
                pos, k, ended = _single(bits, pos, k, info >> uint64(56), codes, values)
                sound = ended != uint64(BROKEN)
                row, phase, whole = _on(ended & uint64(1), info)
                starts[n + uint64(1)] = pos
                n += whole
                break
            ends = entry >> uint64(15)
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


@njit(inline="always")
def _odd(
    bits: np.ndarray, codes: np.ndarray, values: np.ndarray, phases: np.ndarray, pos: int, k: int, state: int
) -> tuple[int, int, int, int]:
    """Past one code of a special entry: (pos, k, state, what `_single` says)."""
    info = phases[state >> uint64(16) & uint64(255)]
    pos, k, ended = _single(bits, pos, k, info >> uint64(56), codes, values)
    row, phase, _ = _on(ended & uint64(1), info)
    return pos, k, row | phase << uint64(16), ended


@njit(inline="always")
def _entry(passing: np.ndarray, front: int, state: int) -> int:
    return uint64(passing[(state & uint64(0xFFFF)) + (front >> uint64(64 - LOOK))])


@njit(inline="always")
def _next(steps: np.ndarray, entry: int, state: int) -> int:
    """Row and block (16 bits each, and more above) behind the codes of an entry."""
    return steps[state >> uint64(16) & uint64(255)] >> _ended(entry)


@njit(inline="always")
def _ended(entry: int) -> int:
    """32 where the codes of an entry end a block, else 0."""
    return entry >> uint64(10) & uint64(32)


@kernel("i8(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[::1], u8[::1], u8[:, ::1], u8[::1])")
def _turns(
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    phases: np.ndarray,
    steps: np.ndarray,
    at: np.ndarray,
    stops: np.ndarray,
) -> int:
    """Three places in turns, up to where one of them has come to its stop; which of them finds something broken, -1 where none does.

    What is done for a code decides how long all of this takes, so nothing is counted but bits and blocks, in the fields of one sum.
    """
    above, broken, blocks = uint64(3 * END), -1, uint64(len(phases))
    for i in range(PLACES):
        at[i, ENDS] = at[i, PHASE]
    pa, pb, pc = at[0, POS], at[1, POS], at[2, POS]
    ka, kb, kc = at[0, K], at[1, K], at[2, K]
    sa, sb, sc = (
        at[0, ROW] | at[0, PHASE] << uint64(16),
        at[1, ROW] | at[1, PHASE] << uint64(16),
        at[2, ROW] | at[2, PHASE] << uint64(16),
    )
    while broken < 0 and pa < stops[0] and pb < stops[1] and pc < stops[2]:
        a, b, c = window(bits, pa), window(bits, pb), window(bits, pc)
        da, db, dc = uint64(0), uint64(0), uint64(0)
        oa, ob, oc = uint64(0), uint64(0), uint64(0)
        for _ in range(3):
            ea, eb, ec = _entry(passing, a, sa), _entry(passing, b, sb), _entry(passing, c, sc)
            oa, ob, oc = ka + (ea >> uint64(7)), kb + (eb >> uint64(7)), kc + (ec >> uint64(7))
            if (oa | ob | oc) & above:
                break
            da, db, dc = da + ea, db + eb, dc + ec
            a, b, c = a << (ea & uint64(63)), b << (eb & uint64(63)), c << (ec & uint64(63))
            ka, kb, kc = oa >> _ended(ea), ob >> _ended(eb), oc >> _ended(ec)
            sa, sb, sc = _next(steps, ea, sa), _next(steps, eb, sb), _next(steps, ec, sc)
        pa, pb, pc = pa + (da & uint64(127)), pb + (db & uint64(127)), pc + (dc & uint64(127))
        at[0, ENDS] += da >> uint64(15)
        at[1, ENDS] += db >> uint64(15)
        at[2, ENDS] += dc >> uint64(15)
        if (oa | ob | oc) & above:
            if oa & above:
                pa, ka, sa, ended = _odd(bits, codes, values, phases, pa, ka, sa)
                at[0, ENDS] += ended & uint64(1)
                broken = 0 if ended == uint64(BROKEN) else broken
            if ob & above:
                pb, kb, sb, ended = _odd(bits, codes, values, phases, pb, kb, sb)
                at[1, ENDS] += ended & uint64(1)
                broken = 1 if ended == uint64(BROKEN) and broken < 0 else broken
            if oc & above:
                pc, kc, sc, ended = _odd(bits, codes, values, phases, pc, kc, sc)
                at[2, ENDS] += ended & uint64(1)
                broken = 2 if ended == uint64(BROKEN) and broken < 0 else broken
    at[0, POS], at[1, POS], at[2, POS] = pa, pb, pc
    at[0, K], at[1, K], at[2, K] = ka, kb, kc
    at[0, ROW], at[1, ROW], at[2, ROW] = sa & uint64(0xFFFF), sb & uint64(0xFFFF), sc & uint64(0xFFFF)
    at[0, PHASE], at[1, PHASE] = sa >> uint64(16) & uint64(255), sb >> uint64(16) & uint64(255)
    at[2, PHASE] = sc >> uint64(16) & uint64(255)
    for i in range(PLACES):
        at[i, N] += at[i, ENDS] // blocks
    return broken


@kernel("(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[::1], u8[::1], u8, u8, i4[::1])")
def _find(
    bits: np.ndarray,
    codes: np.ndarray,
    passing: np.ndarray,
    values: np.ndarray,
    phases: np.ndarray,
    at: np.ndarray,
    stop: int,
    most: int,
    starts: np.ndarray,
) -> None:
    """`_alone` of a place within the file: where it finds something broken, it is not right yet, and begins anew a bit further on."""
    begin = at[ROW]
    starts[0] = at[POS]
    while not _alone(bits, codes, passing, values, phases, at, stop, most, starts):
        at[POS] += uint64(1)
        at[K], at[ROW], at[N], at[PHASE] = uint64(0), begin, uint64(0), uint64(0)
        starts[0] = at[POS]


@kernel("i8(u1[::1], i8[:, ::1], u2[::1], i4[::1], u8[::1], u8[::1], u8, u8, i4[::1], i4[::1], u8)")
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
    others: np.ndarray,
    have: int,
) -> int:
    """Lets a place go on to an MCU that the next place has begun too: which of its first `have`, which begin at `others`, that is.

    -1 where there is none, -BROKEN where the file is broken before.
    """
    number = 0
    while at[N] < most and at[POS] < length:
        if not _alone(bits, codes, passing, values, phases, at, length, at[N] + uint64(1), starts):
            return -BROKEN
        while number <= have and others[number] < np.int64(at[POS]):
            number += 1
        if number > have:
            return -1
        if others[number] == np.int64(at[POS]) and at[PHASE] == uint64(0) and at[K] == uint64(0):
            return number
    return -1


@kernel("b1(u1[::1], i8, i8, i8[:, ::1], u2[::1], i4[::1], u8[::1], i4[:, ::1], u8[:, ::1])")
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
        starts: int32 [PLACES, mcus + BEYOND], scratch.
        at: uint64 [PLACES + 1, KEPT], scratch.
    """
    blocks = len(phases) // 2
    stops, most, steps, phases = at[PLACES], uint64(mcus), phases[blocks:], phases[:blocks]
    at[:] = 0
    at[:PLACES, ROW] = phases[blocks - 1] >> uint64(16) & uint64(0xFFFF)
    for i in range(1, PLACES):
        at[i, POS] = stops[i - 1] = uint64(length * i // PLACES) >> uint64(3) << uint64(3)
    stops[PLACES - 1] = max(length - MARGIN, 0)
    noted = min(most, uint64(max(NOTED // blocks, LEAST)))
    for i in range(1, PLACES):
        _find(bits, codes, passing, values, phases, at[i], stops[i], noted, starts[i])
        at[i, FOUND] = at[i, N]
    broken, before, last = _turns(bits, codes, passing, values, phases, steps, at, stops), 0, 0
    if broken == 0:
        return False
    # Where another one found something broken it may not have been right: the first goes on alone.
    while broken < 0 and last < PLACES - 1:
        left, mine, next_ = uint64(mcus - before), at[last], last + 1
        if not _alone(bits, codes, passing, values, phases, mine, stops[last], left, starts[last]):
            return False
        met = _meeting(
            bits,
            codes,
            passing,
            values,
            phases,
            mine,
            uint64(length),
            left,
            starts[last],
            starts[next_],
            at[next_, FOUND],
        )
        if met == -BROKEN:
            return False
        if met < 0:
            break
        # MCUs up to the last one: more than are noted for are a file that is left to a decoder.
        before, last = before + np.int64(mine[N]) - met, next_
        if not 0 <= before <= mcus:
            return False
    if not _alone(bits, codes, passing, values, phases, at[last], uint64(length), uint64(mcus - before), starts[last]):
        return False
    there = np.int64(at[last, N]) == mcus - before and at[last, PHASE] == uint64(0) and at[last, K] == uint64(0)
    return there and 0 <= length - np.int64(at[last, POS]) < 8

"""From the coefficients of a block to its pixels: 8 x 8, or the 4 x 4, 2 x 2 or 1 that are their means, as libjpeg makes them.

libjpeg's accurate integer transform, which is a decoder's standard, goes over columns and then over rows, in whole numbers: constants
are multiplied by 2^13 and rounded, columns keep two bits more than pixels have, and each pass ends with a shift that rounds. The whole
transform is the flow graph of Loeffler, Ligtenberg and Moschytz (Practical fast 1-D DCT algorithms with 11 multiplications, 1989), whose
products decide what is rounded. A pixel of a smaller one is, along each side, the mean of 2, 4 or 8 pixels, with the constants summed
before they are rounded; so frequency 4 (of halves) and all even ones (of quarters) leave nothing, and of eighths only DC is left.
Decoders of other makers are free to differ by a level; these numbers are to be those of libjpeg and libjpeg-turbo to the last bit.

`LANES` blocks lie side by side and are transformed in vectors; int32() around results keeps numba from making 64 bits of them. Each
function says with its result whether a number was so large that
decoders with 16-bit registers could differ: then its pixels are not to be used. Compiled by numba (extra `numba`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import int32, njit, uint32

from compiled.kernel import kernel
from shards.format.jpeg_values import LANES, STRIDE

BITS, KEPT = 13, 2
ROOM = 1 << 14
"""Coefficients and columns below that cannot overflow 16 bits when two of them are added."""


def fixed(x: float) -> int:
    return round(x * (1 << BITS))


def _cos(k: int) -> float:
    return math.sqrt(2) * math.cos(k * math.pi / 16)


def means(pixels: int) -> list[np.int32]:
    """Of the first pixel and the second that are means of so many, what frequencies 1, 3, 5, 7 (and, of two, 2, 6) contribute."""
    found = []
    for first in range(min(2, 4 // pixels)):
        inside = range(2 * pixels * first + 1, 2 * pixels * (first + 1), 2)
        found += [np.int32(fixed(sum(_cos(i * k) for i in inside))) for k in (1, 3, 5, 7, 2, 6)]
    return found


_C1, _C2, _C3, _, _C5, _C6, _C7 = (_cos(k) for k in range(1, 8))
F_E, F_E2, F_E6 = (np.int32(fixed(x)) for x in (_C6, _C2 - _C6, -_C2 - _C6))
F_5 = np.int32(fixed(_C3))
F_Z1, F_Z2, F_Z3, F_Z4 = (np.int32(fixed(x)) for x in (_C7 - _C3, -_C1 - _C3, -_C3 - _C5, _C5 - _C3))
F_7 = np.int32(fixed(-_C1 + _C3 + _C5 - _C7))
F_51 = np.int32(fixed(_C1 + _C3 - _C5 + _C7))
F_3 = np.int32(fixed(_C1 + _C3 + _C5 - _C7))
F_1 = np.int32(fixed(_C1 + _C3 - _C5 - _C7))
A1, A3, A5, A7, E2, E6, B1, B3, B5, B7, _, _ = means(2)
D1, D3, D5, D7, _, _ = means(4)


@njit(inline="always")
def _eight(x0, x1, x2, x3, x4, x5, x6, x7, bias):  # type: ignore[no-untyped-def]
    """Eight sums of a column or a row, with `bias` in each, before they are shifted."""
    z = int32((x2 + x6) * F_E)
    even2, even6 = int32(z + x2 * F_E2), int32(z + x6 * F_E6)
    plus, minus = int32(((x0 + x4) << int32(BITS)) + bias), int32(((x0 - x4) << int32(BITS)) + bias)
    e0, e3, e1, e2 = int32(plus + even2), int32(plus - even2), int32(minus + even6), int32(minus - even6)
    z3, z4 = int32(x7 + x3), int32(x5 + x1)
    z5 = int32((z3 + z4) * F_5)
    z1, z2 = int32((x7 + x1) * F_Z1), int32((x5 + x3) * F_Z2)
    z3, z4 = int32(z3 * F_Z3 + z5), int32(z4 * F_Z4 + z5)
    o3, o2 = int32(x7 * F_7 + z1 + z3), int32(x5 * F_51 + z2 + z4)
    o1, o0 = int32(x3 * F_3 + z2 + z3), int32(x1 * F_1 + z1 + z4)
    low = int32(e0 + o0), int32(e1 + o1), int32(e2 + o2), int32(e3 + o3)
    return (*low, int32(e3 - o3), int32(e2 - o2), int32(e1 - o1), int32(e0 - o0))


@njit(inline="always")
def _four(x0, x1, x2, x3, x5, x6, x7, bias):  # type: ignore[no-untyped-def]
    z0, z2 = int32((x0 << int32(BITS + 1)) + bias), int32(x2 * E2 + x6 * E6)
    a, b = int32(x1 * A1 + x3 * A3 + x5 * A5 + x7 * A7), int32(x1 * B1 + x3 * B3 + x5 * B5 + x7 * B7)
    return int32(z0 + z2 + a), int32(z0 - z2 + b), int32(z0 - z2 - b), int32(z0 + z2 - a)


@njit(inline="always")
def _two(x0, x1, x3, x5, x7, bias):  # type: ignore[no-untyped-def]
    z0, a = int32((x0 << int32(BITS + 2)) + bias), int32(x1 * D1 + x3 * D3 + x5 * D5 + x7 * D7)
    return int32(z0 + a), int32(z0 - a)


@njit(inline="always")
def _clipped(x):  # type: ignore[no-untyped-def]
    return uint32(min(max(x, int32(0)), int32(255)))


@njit(inline="always")
def _packed(y0, y1, y2, y3):  # type: ignore[no-untyped-def]
    low = uint32(_clipped(y0) | _clipped(y1) << uint32(8))
    return uint32(low | _clipped(y2) << uint32(16) | _clipped(y3) << uint32(24))


@njit(inline="always")
def _size(x):  # type: ignore[no-untyped-def]
    """Has the bits of |x|, nearly."""
    return int32(x ^ (x >> int32(31)))


@njit(inline="always")
def _far(x):  # type: ignore[no-untyped-def]
    """Not 0 where a pixel is so far from 0 to 255 that tables of decoders end."""
    return int32(int32(x + int32(384)) & int32(~1023))


@kernel("b1(i2[::1], i4[::1], i4[::1], u1[:, ::1], i8, i8, i8)")
def eights(
    coef: np.ndarray, quanta: np.ndarray, columns: np.ndarray, out: np.ndarray, top: int, left: int, count: int
) -> bool:
    """`count` blocks of 8 x 8 pixels, side by side, at row `top` and column `left` of `out`; False where they are not sure."""
    size, far, bias = int32(0), int32(0), int32(1 << (BITS - KEPT - 1))
    for c in range(8):
        at, to = c * STRIDE, c * LANES
        q0, q1, q2, q3 = quanta[c], quanta[c + 8], quanta[c + 16], quanta[c + 24]
        q4, q5, q6, q7 = quanta[c + 32], quanta[c + 40], quanta[c + 48], quanta[c + 56]
        for b in range(LANES):
            i, o = at + b, to + b
            x0, x1 = int32(coef[i] * q0), int32(coef[i + 8 * STRIDE] * q1)
            x2, x3 = int32(coef[i + 16 * STRIDE] * q2), int32(coef[i + 24 * STRIDE] * q3)
            x4, x5 = int32(coef[i + 32 * STRIDE] * q4), int32(coef[i + 40 * STRIDE] * q5)
            x6, x7 = int32(coef[i + 48 * STRIDE] * q6), int32(coef[i + 56 * STRIDE] * q7)
            size |= _size(x0) | _size(x1) | _size(x2) | _size(x3) | _size(x4) | _size(x5) | _size(x6) | _size(x7)
            y0, y1, y2, y3, y4, y5, y6, y7 = _eight(x0, x1, x2, x3, x4, x5, x6, x7, bias)
            shift = int32(BITS - KEPT)
            y0, y1, y2, y3 = y0 >> shift, y1 >> shift, y2 >> shift, y3 >> shift
            y4, y5, y6, y7 = y4 >> shift, y5 >> shift, y6 >> shift, y7 >> shift
            size |= _size(y0) | _size(y1) | _size(y2) | _size(y3) | _size(y4) | _size(y5) | _size(y6) | _size(y7)
            columns[o], columns[o + 8 * LANES], columns[o + 16 * LANES], columns[o + 24 * LANES] = y0, y1, y2, y3
            columns[o + 32 * LANES], columns[o + 40 * LANES] = y4, y5
            columns[o + 48 * LANES], columns[o + 56 * LANES] = y6, y7
    bias = int32((1 << (BITS + KEPT + 2)) + (128 << (BITS + KEPT + 3)))
    for r in range(8):
        at = 8 * r * LANES
        line = out[top + r, left : left + 8 * count].view(np.uint32)
        for b in range(count):
            i = at + b
            x0, x1, x2, x3 = columns[i], columns[i + LANES], columns[i + 2 * LANES], columns[i + 3 * LANES]
            x4, x5, x6 = columns[i + 4 * LANES], columns[i + 5 * LANES], columns[i + 6 * LANES]
            y0, y1, y2, y3, y4, y5, y6, y7 = _eight(x0, x1, x2, x3, x4, x5, x6, columns[i + 7 * LANES], bias)
            shift = int32(BITS + KEPT + 3)
            y0, y1, y2, y3 = y0 >> shift, y1 >> shift, y2 >> shift, y3 >> shift
            y4, y5, y6, y7 = y4 >> shift, y5 >> shift, y6 >> shift, y7 >> shift
            far |= _far(y0) | _far(y1) | _far(y2) | _far(y3) | _far(y4) | _far(y5) | _far(y6) | _far(y7)
            line[2 * b] = _packed(y0, y1, y2, y3)
            line[2 * b + 1] = _packed(y4, y5, y6, y7)
    return bool(size < ROOM) and bool(far == 0)


@kernel("b1(i2[::1], i4[::1], i4[::1], u1[:, ::1], i8, i8, i8)")
def fours(
    coef: np.ndarray, quanta: np.ndarray, columns: np.ndarray, out: np.ndarray, top: int, left: int, count: int
) -> bool:
    """`eights`, of 4 x 4 pixels a block."""
    size, far, bias, shift = int32(0), int32(0), int32(1 << (BITS - KEPT)), int32(BITS - KEPT + 1)
    for c in (0, 1, 2, 3, 5, 6, 7):
        at, to = c * STRIDE, c * LANES
        q0, q1, q2, q3 = quanta[c], quanta[c + 8], quanta[c + 16], quanta[c + 24]
        q5, q6, q7 = quanta[c + 40], quanta[c + 48], quanta[c + 56]
        for b in range(LANES):
            i, o = at + b, to + b
            x0, x1 = int32(coef[i] * q0), int32(coef[i + 8 * STRIDE] * q1)
            x2, x3 = int32(coef[i + 16 * STRIDE] * q2), int32(coef[i + 24 * STRIDE] * q3)
            x5, x6 = int32(coef[i + 40 * STRIDE] * q5), int32(coef[i + 48 * STRIDE] * q6)
            x7 = int32(coef[i + 56 * STRIDE] * q7)
            size |= _size(x0) | _size(x1) | _size(x2) | _size(x3) | _size(x5) | _size(x6) | _size(x7)
            y0, y1, y2, y3 = _four(x0, x1, x2, x3, x5, x6, x7, bias)
            y0, y1, y2, y3 = y0 >> shift, y1 >> shift, y2 >> shift, y3 >> shift
            size |= _size(y0) | _size(y1) | _size(y2) | _size(y3)
            columns[o], columns[o + 8 * LANES], columns[o + 16 * LANES], columns[o + 24 * LANES] = y0, y1, y2, y3
    bias, shift = int32((1 << (BITS + KEPT + 3)) + (128 << (BITS + KEPT + 4))), int32(BITS + KEPT + 4)
    for r in range(4):
        at = 8 * r * LANES
        line = out[top + r, left : left + 4 * count].view(np.uint32)
        for b in range(count):
            i = at + b
            x0, x1, x2, x3 = columns[i], columns[i + LANES], columns[i + 2 * LANES], columns[i + 3 * LANES]
            x5, x6, x7 = columns[i + 5 * LANES], columns[i + 6 * LANES], columns[i + 7 * LANES]
            y0, y1, y2, y3 = _four(x0, x1, x2, x3, x5, x6, x7, bias)
            y0, y1, y2, y3 = y0 >> shift, y1 >> shift, y2 >> shift, y3 >> shift
            far |= _far(y0) | _far(y1) | _far(y2) | _far(y3)
            line[b] = _packed(y0, y1, y2, y3)
    return bool(size < ROOM) and bool(far == 0)


@kernel("b1(i2[::1], i4[::1], i4[::1], u1[:, ::1], i8, i8, i8)")
def twos(
    coef: np.ndarray, quanta: np.ndarray, columns: np.ndarray, out: np.ndarray, top: int, left: int, count: int
) -> bool:
    """`eights`, of 2 x 2 pixels a block."""
    size, far, bias, shift = int32(0), int32(0), int32(1 << (BITS - KEPT + 1)), int32(BITS - KEPT + 2)
    for c in (0, 1, 3, 5, 7):
        at, to = c * STRIDE, c * LANES
        q0, q1, q3, q5, q7 = quanta[c], quanta[c + 8], quanta[c + 24], quanta[c + 40], quanta[c + 56]
        for b in range(LANES):
            i, o = at + b, to + b
            x0, x1, x3 = int32(coef[i] * q0), int32(coef[i + 8 * STRIDE] * q1), int32(coef[i + 24 * STRIDE] * q3)
            x5, x7 = int32(coef[i + 40 * STRIDE] * q5), int32(coef[i + 56 * STRIDE] * q7)
            size |= _size(x0) | _size(x1) | _size(x3) | _size(x5) | _size(x7)
            y0, y1 = _two(x0, x1, x3, x5, x7, bias)
            columns[o], columns[o + 8 * LANES] = y0 >> shift, y1 >> shift
            size |= _size(y0 >> shift) | _size(y1 >> shift)
    bias, shift = int32((1 << (BITS + KEPT + 4)) + (128 << (BITS + KEPT + 5))), int32(BITS + KEPT + 5)
    for r in range(2):
        at = 8 * r * LANES
        line = out[top + r, left : left + 2 * count].view(np.uint16)
        for b in range(count):
            i = at + b
            x0, x1, x3 = columns[i], columns[i + LANES], columns[i + 3 * LANES]
            y0, y1 = _two(x0, x1, x3, columns[i + 5 * LANES], columns[i + 7 * LANES], bias)
            y0, y1 = y0 >> shift, y1 >> shift
            far |= _far(y0) | _far(y1)
            line[b] = np.uint16(_clipped(y0) | _clipped(y1) << uint32(8))
    return bool(size < ROOM) and bool(far == 0)

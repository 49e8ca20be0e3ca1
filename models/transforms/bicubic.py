"""Pillow's bicubic filter for one channel of 8 bits: its pixels to the last bit, in a seventh of its time (numba).

Both passes of Pillow's resampling (columns to their new number, and rows; whole numbers with 22 bits behind the point) are one kernel
that adds rows, which lie side by side in memory; for the columns the picture is turned over its diagonal and back, in squares of 8 x 8
pixels whose rows are whole numbers of 64 bits. The filter is that of Keys (Cubic convolution interpolation for digital image processing,
1981) with a = -1/2, wider by what it shrinks. A pass that changes nothing has one weight of 1 for each pixel, and changes nothing.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import numpy as np
from numba import int32, njit, types, uint64

from compiled.kernel import kernel

_READ_ONLY = types.Array(types.uint8, 2, "C", readonly=True)
BITS = 22
A, SUPPORT = -0.5, 2.0
TAPS = 4
"""Rows that are added at a time: all of them where nothing is shrunk, but at some edges of pixels."""

Weights = tuple[np.ndarray, np.ndarray]
Box = tuple[float, float, float, float]


class _Room(threading.local):
    """Memory of a thread for what lies between the passes: new memory of that size costs more than a pass."""

    def __init__(self) -> None:
        self.bytes = np.empty(0, np.uint8)

    def of(self, *shapes: tuple[int, int]) -> list[np.ndarray]:
        """uint8 arrays of these shapes."""
        if len(self.bytes) < (size := sum(h * w for h, w in shapes)):
            self.bytes = np.empty(size, np.uint8)
        ends = np.cumsum([0, *(h * w for h, w in shapes)])
        return [self.bytes[lo:hi].reshape(shape) for lo, hi, shape in zip(ends[:-1], ends[1:], shapes, strict=True)]


_room = _Room()


def resampled(
    image_HW: np.ndarray, size: tuple[int, int], box: Box | None = None, rows_first: bool = False
) -> np.ndarray:
    """uint8 [h, w]: what `Image.resize((w, h), Image.Resampling.BICUBIC, box)` makes of contiguous uint8 [H, W].

    Args:
        size: (h, w).
        box: (left, top, right, bottom) of what is filtered, in pixels; None: all of it.
        rows_first: which of the passes comes first, of which each rounds to whole numbers.
    """
    (H, W), (h, w) = image_HW.shape, size
    left, top, right, bottom = (0.0, 0.0, float(W), float(H)) if box is None else box
    columns, rows = weights_of(W, left, right, w), weights_of(H, top, bottom, h)
    if rows_first:
        return _rows_first(image_HW, columns, rows)
    high, wide, new = _eights(H), _eights(W), _eights(w)
    turned_WH, wide_wH, wide_Hw = _room.of((wide, high), (new, high), (high, new))
    turned(image_HW, turned_WH)
    added(turned_WH, *columns, wide_wH)
    turned(wide_wH, wide_Hw)
    out_hw = np.empty((h, w), np.uint8)
    added(wide_Hw, *rows, out_hw)
    return out_hw


def _rows_first(image_HW: np.ndarray, columns: Weights, rows: Weights) -> np.ndarray:
    W, h, w = image_HW.shape[1], len(rows[0]), len(columns[0])
    high, wide, new = _eights(h), _eights(W), _eights(w)
    turned_Wh, wide_wh, fewer_hW = _room.of((wide, high), (new, high), (h, W))
    added(image_HW, *rows, fewer_hW)
    turned(fewer_hW, turned_Wh)
    added(turned_Wh, *columns, wide_wh)
    out_hw = np.empty((high, new), np.uint8)
    turned(wide_wh, out_hw)
    return np.ascontiguousarray(out_hw[:h, :w])


def _eights(n: int) -> int:
    return -(-n // 8) * 8


@lru_cache(maxsize=8)
def weights_of(size: int, low: float, high: float, new: int) -> Weights:
    """Of each new pixel where its first old one is, int64 [new], and what the old ones count, int32 [new, a multiple of TAPS]."""
    # Pillow takes the box in single precision.
    begin, scale = np.float32(low), float(np.float32(high) - np.float32(low)) / new
    support = SUPPORT * max(scale, 1.0)
    starts = np.empty(new, np.int64)
    weights = np.zeros((new, -(-(2 * math.ceil(support) + 1) // TAPS) * TAPS), np.int32)
    weigh(size, float(begin), scale, starts, weights)
    used = TAPS * -(-int(np.flatnonzero(weights.any(0))[-1] + 1) // TAPS)
    return starts, np.ascontiguousarray(weights[:, :used])


@kernel("(i8, f8, f8, i8[::1], i4[:, ::1])")
def weigh(size: int, low: float, scale: float, starts: np.ndarray, weights: np.ndarray) -> None:
    """Fills `starts` and `weights`, with Pillow's operations in its order."""
    wide = max(scale, 1.0)
    support, narrow = SUPPORT * wide, 1.0 / wide
    row = np.empty(weights.shape[1], np.float64)
    for i in range(len(starts)):
        centre = low + (i + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), size) - first
        total = 0.0
        for j in range(count):
            x = abs((j + first - centre + 0.5) * narrow)
            if x < 1.0:
                row[j] = ((A + 2.0) * x - (A + 3.0)) * x * x + 1
            elif x < 2.0:
                row[j] = (((x - 5) * x + 8) * x - 4) * A
            else:
                row[j] = 0.0
            total += row[j]
        starts[i] = first
        for j in range(count):
            exact = (row[j] / total if total != 0.0 else row[j]) * (1 << BITS)
            weights[i, j] = np.int32(exact - 0.5) if exact < 0 else np.int32(exact + 0.5)


@kernel(types.void(_READ_ONLY, types.int64[::1], types.int32[:, ::1], types.uint8[:, ::1]))
def added(image: np.ndarray, starts: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Rows of `out`, each the weighted sum of rows of the image from its start on; those behind the last start stay as they are.

    The image may be wider than `out`.
    """
    last, width = len(image) - 1, out.shape[1]
    sums = np.empty(width, np.int32)
    for i in range(len(starts)):
        sums[:] = 1 << (BITS - 1)
        for j in range(0, weights.shape[1], TAPS):
            # Rows beyond the last one weigh nothing.
            at = starts[i] + j
            a, b = image[min(at, last)], image[min(at + 1, last)]
            c, d = image[min(at + 2, last)], image[min(at + 3, last)]
            k, m, n, o = weights[i, j], weights[i, j + 1], weights[i, j + 2], weights[i, j + 3]
            for x in range(width):
                sums[x] = int32(sums[x] + a[x] * k + b[x] * m + c[x] * n + d[x] * o)
        row = out[i]
        for x in range(width):
            row[x] = np.uint8(min(max(sums[x] >> int32(BITS), int32(0)), int32(255)))


@njit(inline="always")
def squares(row):  # type: ignore[no-untyped-def]
    return row[: len(row) // 8 * 8].view(np.uint64)


@njit(inline="always")
def changed(upper, lower, bits, mask):  # type: ignore[no-untyped-def]
    """Two rows after pixels under the mask, of the lower one, have changed places with those beside it, of the upper one."""
    other = ((upper >> uint64(bits)) ^ lower) & uint64(mask)
    return upper ^ (other << uint64(bits)), lower ^ other


@kernel(types.void(_READ_ONLY, types.uint8[:, ::1]))
def turned(image: np.ndarray, out: np.ndarray) -> None:
    """Fills `out`, of sides that 8 divides and not smaller, with the image turned over its diagonal; what is beyond it is anything."""
    (H, W), out8 = image.shape, out.view(np.uint64)
    for y in range(H // 8):
        eight = image[8 * y : 8 * y + 8]
        a, b, c, d = squares(eight[0]), squares(eight[1]), squares(eight[2]), squares(eight[3])
        e, f, g, h = squares(eight[4]), squares(eight[5]), squares(eight[6]), squares(eight[7])
        for x in range(W // 8):
            # Squares of 4, 2 and 1 pixels a side change places beside the diagonal.
            r0, r4 = changed(a[x], e[x], 32, 0x00000000FFFFFFFF)
            r1, r5 = changed(b[x], f[x], 32, 0x00000000FFFFFFFF)
            r2, r6 = changed(c[x], g[x], 32, 0x00000000FFFFFFFF)
            r3, r7 = changed(d[x], h[x], 32, 0x00000000FFFFFFFF)
            r0, r2 = changed(r0, r2, 16, 0x0000FFFF0000FFFF)
            r1, r3 = changed(r1, r3, 16, 0x0000FFFF0000FFFF)
            r4, r6 = changed(r4, r6, 16, 0x0000FFFF0000FFFF)
            r5, r7 = changed(r5, r7, 16, 0x0000FFFF0000FFFF)
            at = 8 * x
            out8[at, y], out8[at + 1, y] = changed(r0, r1, 8, 0x00FF00FF00FF00FF)
            out8[at + 2, y], out8[at + 3, y] = changed(r2, r3, 8, 0x00FF00FF00FF00FF)
            out8[at + 4, y], out8[at + 5, y] = changed(r4, r5, 8, 0x00FF00FF00FF00FF)
            out8[at + 6, y], out8[at + 7, y] = changed(r6, r7, 8, 0x00FF00FF00FF00FF)
    for y in range(H):
        for x in range(W // 8 * 8 if y < H // 8 * 8 else 0, W):
            out[x, y] = image[y, x]

"""Decodes what nearly all films are, a grey baseline JPEG of one scan, whole or in part, and with its sides divided by 2, 4 or 8.

The pixels are those of libjpeg-turbo to the last bit. All codes are read to the end, so nothing that is damaged is decoded, but values
are read of those blocks alone that a box touches. Of every other file, and wherever equality is not sure, nothing is said, and the
library has to be asked (shards/format/codecs.py). Compiled by numba (extra `numba`).
"""

from __future__ import annotations

import numpy as np

from compiled.kernel import kernel
from shards.format.jpeg_blocks import scanned
from shards.format.jpeg_transforms import eights, fours, twos
from shards.format.jpeg_values import LANES, STRIDE, coefficients, dc_values, pairs_of, zigzag

ORDER = zigzag()
PLACES = (ORDER[1:65] // np.uint64(STRIDE)).astype(np.intp)
Box = tuple[int, int, int, int]


def decode(
    data: bytes, divisor: int, box: Box | None = None, home: np.ndarray | None = None
) -> tuple[np.ndarray, int, int] | None:
    """Pixels uint8 [h, w, 1] of a box, with the row and the column at which they begin in the image whose sides are divided.

    Args:
        divisor: of the sides: 1, 2, 4 or 8.
        box: (left, top, right, bottom) in pixels of the whole image, of which more may come; None: all of it.
        home: an array that is taken for the pixels where all of the image is asked for and its sides are whole blocks.

    Returns:
        None where the library has to be asked; `home` is spoilt then.
    """
    if (scan := scanned(data)) is None:
        return None
    plan, side = scan.plan, 8 // divisor
    if divisor > 1 and min(plan.height, plan.width) <= 8:
        return None  # several divisors give the same size, of which the library takes the one that it likes
    left, top, right, bottom = (0, 0, plan.width, plan.height) if box is None else box
    x0, y0, x1, y1 = left // 8, top // 8, -(-right // 8), -(-bottom // 8)
    dc = np.empty(y1 * plan.across, np.int32)
    codes, _, values = scan.tables
    if not dc_values(scan.bits, scan.starts, len(dc), codes, values, dc):
        return None
    size = (y1 - y0) * side, (x1 - x0) * side
    if box is not None or (home is not None and home.shape != (*size, 1)):
        home = None
    out = np.empty(size, np.uint8) if home is None else home[..., 0]
    quanta = np.empty(64, np.int32)
    quanta[PLACES] = plan.quanta
    blocks = np.array([x0, y0, x1, y1, plan.across], np.int64)
    if not _region(scan.bits, scan.starts, dc, blocks, side, codes, *pairs_of(codes.tobytes()), ORDER, quanta, out):
        return None
    height, width = -(-plan.height // divisor) - y0 * side, -(-plan.width // divisor) - x0 * side
    return out[:height, :width, None] if home is None else home, y0 * side, x0 * side


@kernel("b1(u1[::1], i4[::1], i4[::1], i8[::1], i8, i8[:, ::1], u2[::1], i4[::1], u8[::1], i4[::1], u1[:, ::1])")
def _region(
    bits: np.ndarray,
    starts: np.ndarray,
    dc: np.ndarray,
    blocks: np.ndarray,
    side: int,
    codes: np.ndarray,
    steps: np.ndarray,
    pairs: np.ndarray,
    order: np.ndarray,
    quanta: np.ndarray,
    out: np.ndarray,
) -> bool:
    """Fills `out` with blocks from x0 to x1 and y0 to y1, of `side` pixels a side each; False where a pixel is not sure."""
    x0, y0, x1, y1, across = blocks
    coef, columns = np.empty(65 * STRIDE, np.int16), np.empty(64 * LANES, np.int32)
    sure = True
    for y in range(y0, y1):
        for x in range(x0, x1, LANES):
            first, count = y * across + x, min(LANES, x1 - x)
            top, left = (y - y0) * side, (x - x0) * side
            if side == 1:
                for b in range(count):
                    level = ((dc[first + b] * quanta[0] + 4) >> 3) + 128
                    sure &= -384 <= level < 640
                    out[top, left + b] = min(max(level, 0), 255)
                continue
            coefficients(bits, starts, first, count, codes, steps, pairs, order, coef)
            for b in range(count):
                coef[b] = dc[first + b]
            if side == 8:
                sure &= eights(coef, quanta, columns, out, top, left, count)
            elif side == 4:
                sure &= fours(coef, quanta, columns, out, top, left, count)
            else:
                sure &= twos(coef, quanta, columns, out, top, left, count)
    return sure

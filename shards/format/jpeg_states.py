"""What a place of a JPEG knows whose codes are read at many places at once (jpeg_lanes.py), and the rows of entries that it looks at.

As `passing` (jpeg_huffman.py), but without special entries: a code that is longer than a look leads to a row for what follows it, and one
whose block might be full to the row of single codes. So all places do the same at every look, and none has to be asked apart.

An entry of uint32, from its low bits on; the fields below `single` of three entries can be added up:

    taken    bits of the file (7)
    on       coefficients (6, and 1 that is set where there are more than a block has)
    ends     1 where the block ends (2)
    single   1 where it is one code, behind which a full block has ended (1)
    next     the row for what follows, unless the block has ended (15)

The rows: of zeros, in which a place waits; of what is broken; for each pair of tables one of as many codes as fit, the same of single codes
behind it, and one for the beginning of a block; then those for what follows long codes.

The state of a place: which block of the MCU it is in (3), whether the end of its part is near (1), whether it waits (1); from bit `NEXT` on
its row.
"""

from __future__ import annotations

import numpy as np

LOOK_ROWS = 12
SIZE = 1 << LOOK_ROWS
MOST_ROWS = 160
"""Of one file: one that has more is read otherwise."""
MOST_TAKEN = 19
"""Bits of the file that an entry takes at most: three of them are in the 57 bits of a window."""
LONGEST = 16
ON, FULL, ENDS, SINGLE, NEXT = 7, 1 << 13, 14, 1 << 16, 17
TAKEN, COEFFICIENTS, ENDED_BLOCKS, ROWS = (1 << ON) - 1, FULL - (1 << ON), 3 << ENDS, 0x7FFF << NEXT
WAITING, BROKEN, PAIRS = range(3)
"""The first rows: those of pair i begin at PAIRS + OF_A_PAIR x i, and that of its blocks' beginnings is BEGIN behind."""
OF_A_PAIR, BEGIN = 4, 2
STEPS = 32
"""Rows for values that are not taken with their code are kept by bits x STEPS + coefficients."""
BLOCKS, NEAR, WAITS = 8, 8, 16
"""Blocks of an MCU at most; bits of a state."""

KEPT = 9
POS, SUMS, ENDED, STATE, PART, NEXT_PART, BEGAN, CAME, FLAGS = range(KEPT)
"""Of each lane: bits before it, the fields of its entries, blocks of its part that ended (times 1 << ENDS), its state, the bit at which
the part begins that it comes to next, and the one behind it; where its part's first MCU begins, and to which it came behind its part."""
RUNNING, BEFORE = range(2)
"""In FLAGS, a bit a lane: those that have not come to the end of their part, those that have not come to its beginning."""


def states(blocks: tuple[int, ...]) -> np.ndarray:
    """uint64 [2 x BLOCKS + 1] of an MCU whose blocks have those pairs of tables.

    By a block, the state in which the next one begins; the same near the end of a part, where the beginning of an MCU is waited at; and the
    state in which an MCU begins.
    """
    found, n = np.zeros(2 * BLOCKS + 1, np.uint64), len(blocks)
    rows = [PAIRS + OF_A_PAIR * pair + BEGIN for pair in blocks]
    for i in range(n):
        j = (i + 1) % n
        found[i] = rows[j] << NEXT | j
        found[BLOCKS + i] = rows[j] << NEXT | NEAR | j if j else WAITING << NEXT | NEAR | WAITS
    found[2 * BLOCKS] = rows[0] << NEXT
    return found

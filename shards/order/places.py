"""Random orders of which any place is computed by itself: nothing is put in order beforehand, and a resume costs what a start costs.

Numbers stand in a table of about as many rows as columns. Every row is turned by an amount of its own, then every column, `ROUNDS`
times over. That is a Feistel network on two digits with tables of random numbers as its round functions (M. Luby and C. Rackoff, "How to
construct pseudorandom permutations from pseudorandom functions", SIAM J. Comput. 17, 1988; digits of any base and the walk back into a
table that is not full: J. Black and P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). Which number comes to a place is as
likely for each of them; of all orders it reaches as many as its tables hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

ROUNDS = 8
"""Four leave nothing to see of 20,000 numbers; with eight, each of the 720 orders of six numbers is as likely, too."""
BLOCK = 1 << 12
"""Places that are computed together, as one by one they would cost ten times as much."""


class Permutations:
    """An order of 0 to n - 1 for each n of `sizes`, all n of 1 and more, drawn from `rng`."""

    def __init__(self, rng: np.random.Generator, sizes: Sequence[int]):
        self._sizes = np.array(sizes, np.int64)
        self._columns = np.array([math.isqrt(n - 1) + 1 for n in sizes], np.int64)
        self._rows = -(-self._sizes // self._columns)
        self._row0, self._column0 = np.cumsum(self._rows) - self._rows, np.cumsum(self._columns) - self._columns
        self._turns = [
            (_below(rng, self._columns, self._rows), _below(rng, self._rows, self._columns)) for _ in range(ROUNDS)
        ]

    def at(self, places: np.ndarray, which: np.ndarray | int = 0) -> np.ndarray:
        """int64 [m]: what stands at `places` [m] of the orders `which` [m], or of one of them."""
        found = self._turned(places, which)
        outside = np.flatnonzero(found >= self._sizes[which])
        while len(outside):  # the table is not full: less than a row of it is
            of = which if isinstance(which, int) else which[outside]
            found[outside] = self._turned(found[outside], of)
            outside = outside[found[outside] >= self._sizes[of]]
        return found

    def _turned(self, places: np.ndarray, which: np.ndarray | int) -> np.ndarray:
        row0, column0 = self._row0[which], self._column0[which]
        row, column = np.divmod(places, self._columns[which])
        # Unsigned: what is below 0 becomes larger than all else, so that the smaller of x and x - n is x mod n for x below 2n.
        up, left = row.view(np.uint64), column.view(np.uint64)
        rows, columns = self._rows[which].view(np.uint64), self._columns[which].view(np.uint64)
        for by_row, by_column in self._turns:
            left += by_row.take(row0 + row)
            np.minimum(left, left - columns, out=left)
            up += by_column.take(column0 + column)
            np.minimum(up, up - rows, out=up)
        row *= self._columns[which]
        row += column
        return row


def _below(rng: np.random.Generator, most: np.ndarray, count: np.ndarray) -> np.ndarray:
    """uint64: for each i, count[i] random numbers below most[i], one after another."""
    return rng.integers(0, np.repeat(most, count), dtype=np.int64).view(np.uint64)


class Walk:
    """Values in a random order, read in slices from front to back; a block of places is computed when it is come to.

    Args:
        n: how many there are.
        value: int64 [m] numbers below n -> the values [m].
    """

    def __init__(self, rng: np.random.Generator, n: int, value: Callable[[np.ndarray], np.ndarray]):
        self._order, self._n, self._value = Permutations(rng, [n]), n, value
        self._block: tuple[int, np.ndarray] | None = None

    def __getitem__(self, places: slice) -> np.ndarray:
        start, stop, _ = places.indices(self._n)
        parts = [
            self._of(b)[max(start - b * BLOCK, 0) : stop - b * BLOCK] for b in range(start // BLOCK, -(-stop // BLOCK))
        ]
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _of(self, number: int) -> np.ndarray:
        """The block of places from number * BLOCK on."""
        known = self._block
        if known is None or known[0] != number:
            places = np.arange(number * BLOCK, min((number + 1) * BLOCK, self._n))
            known = self._block = (number, self._value(self._order.at(places)))
        return known[1]

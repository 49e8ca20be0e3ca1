"""Can two people have the same vector by chance? A narrow one of yes and no, they can; twenty thousand genes, they cannot.

Shape letters: D width, K codes.
"""

from __future__ import annotations

import numpy as np

CODES = 8
"""Whole numbers -1 to 6 are codes (yes and no, copies of an allele, grades); any other value counts as found once."""
CHANCE = 0.01
FEW = 3
"""More people than this with one vector are not one person under several names: the vector is a common one."""


class Likeness:
    """How often each value stands in each column of a field, over all samples."""

    def __init__(self, width: int):
        self.width, self.samples = width, 0
        self._counts_DK = np.zeros((width, CODES + 1), np.int64)
        self._columns_D = np.arange(width)

    def add(self, x_D: np.ndarray) -> None:
        self.samples += 1
        self._counts_DK[self._columns_D, codes(x_D)] += 1

    def merge(self, other: Likeness) -> None:
        self.samples += other.samples
        self._counts_DK += other._counts_DK

    def by_chance(self, codes_D: np.ndarray) -> float:
        """Pairs of samples with this vector that are to be expected if columns were independent."""
        count_D = np.where(codes_D == CODES, 1, self._counts_DK[self._columns_D, codes_D])
        return float(np.exp(2 * np.log(self.samples) + np.log(np.maximum(count_D, 1) / self.samples).sum()))

    def says_who(self, codes_D: np.ndarray, patients: int) -> bool:
        """Whether so many patients with this vector are worth a look. Columns that go together make chance look smaller than
        it is, so a vector of many patients is never."""
        return patients <= FEW and self.by_chance(codes_D) < CHANCE


def codes(x_D: np.ndarray) -> np.ndarray:
    """uint8 [D]: the value + 1 of small whole numbers, `CODES` for others."""
    with np.errstate(invalid="ignore"):
        whole_D = np.isfinite(x_D) & (x_D >= -1) & (x_D < CODES - 1) & (x_D == np.floor(x_D))
        return np.where(whole_D, np.where(whole_D, x_D, 0) + 1, CODES).astype(np.uint8)

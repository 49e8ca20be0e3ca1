"""Bags of different lengths one after another, so that nothing is computed on padding; and the count of what is, where there is some.

Shape letters: B bags, P rows of all bags together, N rows of the longest bag, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Bags:
    """The rows of B bags, [P, D], and how many each has, in order; a bag may have none.

    A layer that treats each row by itself runs on all rows at once; what looks at a whole bag takes `each` by itself. Both cost what the
    rows cost, whatever else is in the batch, and a bag's result is that of the bag alone.
    """

    rows_PD: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of_padded(cls, x_BND: Tensor, lengths: Sequence[int]) -> Bags:
        """The first `lengths` rows of each sample; what stands behind them is not looked at."""
        if all(n == x_BND.shape[1] for n in lengths):
            return cls(x_BND.flatten(0, 1), tuple(lengths))
        return cls(torch.cat([x_ND[:n] for x_ND, n in zip(x_BND, lengths, strict=True)]), tuple(lengths))

    @classmethod
    def where(cls, tokens_BLD: Tensor, mask_BL: Tensor) -> Bags:
        """The tokens of each sample that are real, in their order."""
        return cls(tokens_BLD[mask_BL], tuple(mask_BL.sum(1).tolist()))

    def of(self, rows_PD: Tensor) -> Bags:
        """Other rows of the same bags."""
        return Bags(rows_PD, self.lengths)

    def and_then(self, more: Bags) -> Bags:
        """Each bag with the rows of another behind its own."""
        pairs = list(zip(self.each(), more.each(), strict=True))
        return Bags(torch.cat([rows for pair in pairs for rows in pair]), tuple(len(a) + len(b) for a, b in pairs))

    def each(self) -> tuple[Tensor, ...]:
        """The rows [n, D] of each bag."""
        return tuple(self.rows_PD.split(self.lengths))

    def means(self) -> Tensor:
        """[B, D]; 0 for a bag without rows."""
        return torch.stack([rows_ND.sum(0) / max(len(rows_ND), 1) for rows_ND in self.each()])

    def at(self, place_Bk: Tensor) -> Tensor:
        """The rows at these places of each bag, [B, k, D]; a place that a bag does not have gives some finite row."""
        rows_PD = self.rows_PD if len(self.rows_PD) else self.rows_PD.sum(0, keepdim=True)
        first_B = torch.tensor([0, *self.lengths[:-1]], device=place_Bk.device).cumsum(0)
        return rows_PD[(first_B[:, None] + place_Bk).clamp_max(len(rows_PD) - 1)]

    def mask(self) -> Tensor:
        """Which places of `padded` are real, bool [B, N]."""
        lengths_B = torch.tensor(self.lengths, device=self.rows_PD.device)
        return torch.arange(self._longest, device=self.rows_PD.device) < lengths_B[:, None]

    def padded(self) -> Tensor:
        """[B, N, D], zeros behind each bag's rows; N is at least 1."""
        if not any(self.lengths):
            return self.rows_PD.new_zeros(len(self.lengths), 1, self.rows_PD.shape[1])
        return pad_sequence(list(self.each()), batch_first=True)

    @property
    def _longest(self) -> int:
        return max(1, *self.lengths)


# ------------------------------------------------------------------------------------------------------------------ the count


@dataclass
class Rows:
    """Rows of bags that were computed, and how many of them were real; the others were padding."""

    computed: int = 0
    real: int = 0


_counting: ContextVar[Rows | None] = ContextVar("counting", default=None)


@contextmanager
def counting_rows() -> Iterator[Rows]:
    """Within it, what methods say of the rows that they compute (`computes`) is added up."""
    rows = Rows()
    token = _counting.set(rows)
    try:
        yield rows
    finally:
        _counting.reset(token)


def computes(computed: int, real: int) -> None:
    """Said by a method where it hands rows of bags to its layers: all of them, and those that are no padding."""
    if (rows := _counting.get()) is not None:
        rows.computed += computed
        rows.real += real

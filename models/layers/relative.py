"""What BEiT's blocks have beside a plain ViT's: a bias of attention for every offset of two patches, and a scale of each branch.

Shape letters: P patches (rows x columns), L tokens = P (+ 1 with a class token), D width, T entries of the table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def table_size(grid: tuple[int, int], extra: int) -> int:
    """T: one entry an offset, (2 rows - 1) (2 columns - 1); with a class token three more."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3 * extra


def relative_index(grid: tuple[int, int], extra: int) -> Tensor:
    """Entry of the table for a query (row) and a key (column), int32 [L, L] (Bao et al. 2022, after Raffel et al. 2020).

    Offsets count row by row from the most negative. The class token, first if there is one, has the last three entries: as a query,
    as a key, and with itself.
    """
    rows, columns = grid
    place_P2 = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)
    offset_PP2 = place_P2[:, None] - place_P2[None] + torch.tensor([rows - 1, columns - 1])
    index_PP = offset_PP2[..., 0] * (2 * columns - 1) + offset_PP2[..., 1]
    if not extra:
        return index_PP.int()
    T, L = table_size(grid, extra), len(index_PP) + 1
    index_LL = torch.empty(L, L, dtype=torch.int32)
    index_LL[1:, 1:] = index_PP
    index_LL[0, :], index_LL[:, 0], index_LL[0, 0] = T - 3, T - 2, T - 1
    return index_LL


def fitted_table(table_TH: Tensor, was: tuple[int, int], grid: tuple[int, int], extra: int) -> Tensor:
    """A table for another grid, [T', H]: offsets of patches bicubically, the class token's three entries as they are."""
    offsets = (2 * was[0] - 1) * (2 * was[1] - 1)
    map_1HRC = table_TH[:offsets].float().T.reshape(1, -1, 2 * was[0] - 1, 2 * was[1] - 1)
    map_1HRC = F.interpolate(map_1HRC, (2 * grid[0] - 1, 2 * grid[1] - 1), mode="bicubic", align_corners=False)
    body_TH = map_1HRC.flatten(2)[0].T.to(table_TH.dtype)
    return torch.cat([body_TH, table_TH[offsets:]]) if extra else body_TH


class LayerScale(nn.Module):
    """x * gamma, a factor a channel (Touvron et al. 2021); at 1.0 the block is what it was without."""

    def __init__(self, dim: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(start)))

    def forward(self, x_BLD: Tensor) -> Tensor:
        return x_BLD * self.gamma

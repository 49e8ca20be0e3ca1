"""Which patches of an image are hidden, and what has to be restored of them.

Shape letters: B images, N patches (row by row), P values of a patch, K kept and M masked patches, N = K + M.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn


def kept(patches: int, ratio: float) -> int:
    """How many of N patches stay visible: N (1 - ratio), rounded down; 1 - 0.9 is a little less than a tenth, and ten of 100 are meant."""
    return int(patches * (1 - ratio) + 1e-9)


def ratio_problems(where: str, ratio: float, places: int, what: str = "patches") -> Iterable[str]:
    """Why a share of places cannot be hidden: all would be, or none."""
    if not 0 < kept(places, ratio) < places:
        good = (
            f"give a share between {1 / places:.3g} and {1 - 1 / places:.3g}" if places > 1 else "give smaller patches"
        )
        yield f"{where}: {ratio} of {places} {what} hides all or none; {good}"


def mask_order(noise_BN: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Kept and masked patches, [B, K] and [B, M]: the places with the smallest noise are kept (MAE, section 3)."""
    N = noise_BN.shape[1]
    order_BN = noise_BN.argsort(stable=True, dim=1)
    K = kept(N, ratio)
    return order_BN[:, :K], order_BN[:, K:]


def kept_words(noise_BT: Tensor, real_BT: Tensor, ratio: float, padding: bool = False) -> tuple[Tensor, Tensor]:
    """Token places of a report that an encoder is given, [B, K] of T, and which of all it may look at, [B, T].

    Those with the smallest noise are kept: as large a share of a report's real tokens, rounded down; or (`padding`) of all places. Tokens
    of equal noise, those of one word, are kept together or hidden together. What fills K places up is not looked at.
    """
    K = kept(noise_BT.shape[1], ratio)
    count_B = torch.full_like(real_BT[:, 0], K, dtype=torch.long)
    if not padding:
        noise_BT = torch.where(real_BT, noise_BT, torch.inf)
        count_B = (real_BT.sum(1).double() * (1 - ratio) + 1e-9).long()
    sorted_BT, order_BT = noise_BT.sort(stable=True, dim=1)
    return order_BT[:, :K], real_BT & (noise_BT < sorted_BT.gather(1, count_B[:, None]))


def blocks_hidden(blocks: int, ratio: float) -> int:
    """How many of G blocks are hidden: G ratio, rounded up (SimMIM); a hundredfold 0.07 is a little more than 7, and seven are meant."""
    return math.ceil(blocks * ratio - 1e-9)


def drawn_blocks(grid: tuple[int, int], side: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Which patches of a grid are hidden, bool [N]: whole blocks of side x side patches, as many in every draw."""
    rows, columns = grid[0] // side, grid[1] // side
    hidden_G = np.zeros(rows * columns, bool)
    hidden_G[rng.permutation(rows * columns)[: blocks_hidden(rows * columns, ratio)]] = True
    return hidden_G.reshape(rows, columns).repeat(side, 0).repeat(side, 1).ravel()


def places_of(hidden_BN: Tensor) -> Tensor:
    """The patches that are hidden, as many in each image, in their order: [B, M]."""
    M = int(hidden_BN[0].sum()) if len(hidden_BN) else 0
    return (~hidden_BN.bool()).int().argsort(stable=True, dim=1)[:, :M]


class MaskToken(nn.Module):
    """Patch embeddings [B, N, D] with one learned vector in place of each that is hidden [B, N]."""

    def __init__(self, dim: int, std: float = 0.02):
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.trunc_normal_(self.mask_token, std=std, a=-std, b=std)

    def forward(self, x_BND: Tensor, hidden_BN: Tensor) -> Tensor:
        return torch.where(hidden_BN.bool()[..., None], self.mask_token.to(x_BND.dtype), x_BND)


def take(x_BNP: Tensor, index_BM: Tensor) -> Tensor:
    """Rows of each sample, [B, M, P]"""
    return x_BNP.gather(1, index_BM[..., None].expand(-1, -1, x_BNP.shape[-1]))


def standardise(x_BMP: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(var + eps) of every patch (MAE, section 4.1), with the unbiased variance; and the two."""
    mean_BM1 = x_BMP.mean(-1, keepdim=True)
    std_BM1 = (x_BMP.var(-1, keepdim=True) + eps).sqrt()
    return (x_BMP - mean_BM1) / std_BM1, mean_BM1, std_BM1


def pasted(x_BNP: Tensor, index_BM: Tensor, new_BMP: Tensor) -> Tensor:
    """A copy of the patches with those at `index_BM` replaced."""
    return torch.scatter(x_BNP, 1, index_BM[..., None].expand_as(new_BMP), new_BMP.to(x_BNP.dtype))

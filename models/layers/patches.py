"""Which patches a masked autoencoder hides, and what it has to restore.

Shape letters: B images, N patches (row by row), P values of a patch, K kept and M masked patches, N = K + M.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kept(patches: int, ratio: float) -> int:
    """How many of N patches stay visible: N (1 - ratio), rounded down; 1 - 0.9 is a little less than a tenth, and ten of 100 are meant."""
    return int(patches * (1 - ratio) + 1e-9)


def mask_order(noise_BN: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Kept and masked patches, [B, K] and [B, M]: the places with the smallest noise are kept (MAE, section 3)."""
    N = noise_BN.shape[1]
    order_BN = noise_BN.argsort(stable=True, dim=1)
    K = kept(N, ratio)
    return order_BN[:, :K], order_BN[:, K:]


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

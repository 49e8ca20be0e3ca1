"""How far vectors of a batch are spread, for choosing weights without labels. Shape letters: R rows, D width."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def smooth_rank(x_RD: Tensor) -> Tensor:
    """exp of the entropy of the singular values' shares, each plus 1e-7 (RankMe, Garrido et al., ICML 2023); not centred.

    Between 1 and min(R, D), 0 of no rows; it grows with spread, not with quality. NaN where a number is not finite.
    """
    x_RD = x_RD.float()
    if not len(x_RD):
        return x_RD.new_zeros(())
    if not bool(x_RD.isfinite().all()):
        return x_RD.new_tensor(torch.nan)
    s = torch.linalg.svdvals(x_RD)
    p = s / s.sum().clamp_min(torch.finfo(torch.float32).tiny) + 1e-7
    return torch.exp(-(p * p.log()).sum())

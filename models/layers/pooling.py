"""Pooling of tokens into one vector. Shape letters: B samples, L tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MixedPooling(nn.Module):
    """a * max + (1 - a) * mean over the tokens [B, L, D] -> [B, D] (Yu et al. 2014); a = 0.5, or learned from there."""

    def __init__(self, alpha: float = 0.5, learn: bool = False):
        super().__init__()
        self.alpha = alpha
        # The sigmoid keeps a learned share inside (0, 1).
        self.logit = nn.Parameter(torch.logit(torch.tensor([alpha]))) if learn else None

    def share(self) -> float:
        """a, the share of the maximum."""
        return self.alpha if self.logit is None else float(self.logit.detach().sigmoid())

    def forward(self, x_BLD: Tensor) -> Tensor:
        a = self.alpha if self.logit is None else self.logit.sigmoid()
        return a * x_BLD.amax(1) + (1 - a) * x_BLD.mean(1)

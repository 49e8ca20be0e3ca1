"""Pooling of tokens into one vector. Shape letters: B samples, L tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST = 1e-6
"""A sum of weights that is no more says nothing of their shares."""


def bag_softmax(score: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the tokens (dimension 1) that are real, float32; 0 elsewhere, and all 0 where none is real.

    Args:
        score: [B, L, ...]; mask: bool, broadcastable to it.
    """
    # The least number instead of -inf: a bag of padding alone would be 0 / 0, in the gradient even where masked after.
    return score.float().masked_fill(~mask, torch.finfo(torch.float32).min).softmax(1) * mask


def shared_out(weight_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Weights [B, N] as shares of their sum over the real tokens, float32; 0 elsewhere, and where they sum to nothing."""
    weight_BN = weight_BN.float().masked_fill(~mask_BN, 0.0)
    sum_B1 = weight_BN.sum(1, keepdim=True)
    return weight_BN / torch.where(sum_B1 > LEAST, sum_B1, torch.inf)


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

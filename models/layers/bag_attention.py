"""Attention pooling over a bag of instances, plain or gated, with one or several branches.

Shape letters: B bags, N instances of a bag, P of all bags, D width of an instance, A width of the attention, K branches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.contract.bags import Bags
from models.layers.pooling import bag_softmax


class BagAttention(nn.Module):
    """Scores of instances [B, N, D] -> [B, N, K], or [P, D] -> [P, K], float32, before the softmax.

    Plain: w . tanh(V h). Gated: w . (tanh(V h) * sigmoid(U h)) (Ilse et al. 2018, eq. 8 and 9). One row of w a branch.

    Args:
        dropout: behind tanh and behind the sigmoid.
    """

    def __init__(self, in_dim: int, hidden: int, branches: int = 1, gated: bool = False, dropout: float = 0.0):
        super().__init__()
        self.tanh = nn.Linear(in_dim, hidden)
        self.gate = nn.Linear(in_dim, hidden) if gated else None
        self.drop = nn.Dropout(dropout)
        self.weigh = nn.Linear(hidden, branches)

    def forward(self, h_BND: Tensor) -> Tensor:
        a_BNA = self.drop(self.tanh(h_BND).tanh())
        if self.gate is not None:
            a_BNA = a_BNA * self.drop(self.gate(h_BND).sigmoid())
        return self.weigh(a_BNA).float()


def weights(score_BNK: Tensor, mask_BN: Tensor) -> Tensor:
    """Shares of the instances in each branch [B, N, K], float32: 1 in all over a bag's real ones, 0 elsewhere."""
    return bag_softmax(score_BNK, mask_BN[..., None])


def pooled(h_BND: Tensor, score_BNK: Tensor, mask_BN: Tensor) -> Tensor:
    """Instances averaged by the softmax of their scores over the bag, [B, K, D]; zeros for a bag without a real instance.

    What stands where `mask_BN` is False must be finite in `h_BND` (a weight of 0 silences no NaN).
    """
    return torch.einsum("bnk,bnd->bkd", weights(score_BNK, mask_BN).to(h_BND.dtype), h_BND)


def pooled_rows(bags: Bags, score_PK: Tensor) -> Tensor:
    """As `pooled`, of bags without padding."""
    scores = score_PK.split(bags.lengths)
    means = [s_NK.softmax(0).to(h_ND.dtype).mT @ h_ND for h_ND, s_NK in zip(bags.each(), scores, strict=True)]
    return torch.stack(means)

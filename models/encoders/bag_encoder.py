"""The slide encoder of TANGLE (Jaume et al., CVPR 2024): patches embedded one by one, attention pooling in one or several heads.

Shape letters: B bags, N instances, F patch feature width, D width of an embedded instance, E width of the bag's vector, K heads.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from models.layers.bag_attention import BagAttention
from models.layers.pooling import bag_softmax

Activation = Literal["softmax", "sigmoid", "relu", "leaky_relu"]


class BagEncoder(nn.Module):
    """Bag [B, N, F], which are real [B, N] -> (embedded instances [B, N, D], vector [B, E]).

    Each layer is Linear, LayerNorm, GELU, dropout. Several heads share an instance's D numbers, each taking every K-th one, and have an
    attention each; what they pool is laid out in the same order and mapped to E by one linear layer. One head: the vector is what it
    pools, E = D. A bag without a real instance has the vector of nothing (zeros, or that layer's bias), which the caller must not use.

    Args:
        widths: F, then of each layer; K times the width of a head at last.
        hidden: width of the attention networks.
        activation: how scores become weights: softmax over the bag; sigmoid, then the mean over the bag; or ReLU, then the sum.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        hidden: int,
        heads: int = 1,
        activation: Activation = "softmax",
        dropout: float = 0.1,
        attention_dropout: float = 0.25,
    ):
        super().__init__()
        self.heads, self.activation = heads, activation
        layers: list[nn.Module] = []
        for fan_in, width in pairwise(widths):
            layers += [nn.Linear(fan_in, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)]
        self.embed = nn.Sequential(*layers)
        D = widths[-1] // heads
        self.attention = nn.ModuleList(BagAttention(D, hidden, 1, True, attention_dropout) for _ in range(heads))
        self.join = nn.Linear(widths[-1], D) if heads > 1 else None

    def forward(self, x_BNF: Tensor, mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        h_BND = self.embed(x_BNF)
        pooled = [
            torch.einsum("bn,bnd->bd", self.weights(net(x_BNd)[..., 0], mask_BN).to(x_BNd.dtype), x_BNd)
            for net, x_BNd in zip(self.attention, self._heads(h_BND), strict=True)
        ]
        return h_BND, pooled[0] if self.join is None else self.join(torch.stack(pooled, -1).flatten(1))

    def _heads(self, h_BND: Tensor) -> tuple[Tensor, ...]:
        return h_BND.unflatten(-1, (-1, self.heads)).unbind(-1)

    def scores(self, h_BND: Tensor) -> Tensor:
        """Of embedded instances before the activation, [B, N, K], float32."""
        return torch.cat([net(x) for net, x in zip(self.attention, self._heads(h_BND), strict=True)], -1)

    def weights(self, score_BN: Tensor, mask_BN: Tensor) -> Tensor:
        """Of instances in the pooled vector, [B, N], float32; 0 where none is real."""
        if self.activation == "softmax":
            return bag_softmax(score_BN, mask_BN)
        if self.activation == "sigmoid":
            return score_BN.sigmoid() * mask_BN / mask_BN.sum(1, keepdim=True).clamp_min(1)
        slope = 0.01 if self.activation == "leaky_relu" else 0.0
        return nn.functional.leaky_relu(score_BN, slope) * mask_BN

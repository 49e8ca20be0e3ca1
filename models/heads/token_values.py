"""What says the values of a hidden token from a transformer's vector: BERT's head of masked words with a matrix of its own.

Shape letters: B samples, L tokens, D width, V values.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.heads.masked_words import EPS


class TokenValues(nn.Module):
    """Dense, GELU, norm, linear; [B, L, D] -> [B, L, V] float32. First weights N(0, 0.02), as BERT's."""

    def __init__(self, dim: int, values: int):
        super().__init__()
        self.dense, self.LayerNorm, self.decoder = (
            nn.Linear(dim, dim),
            nn.LayerNorm(dim, eps=EPS),
            nn.Linear(dim, values),
        )
        for layer in (self.dense, self.decoder):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        made_BLV: Tensor = self.decoder(self.LayerNorm(F.gelu(self.dense(x_BLD))))
        return made_BLV.float()

"""What predicts hidden words from a text encoder's vectors (Devlin et al. 2019), under the names of BERT's files (`cls.predictions`).

Shape letters: N hidden places, E text width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12


class MaskedWords(nn.Module):
    """Dense, GELU, norm, and a score of each word by the table that words are looked up in; [N, E] -> [N, V] float32."""

    def __init__(self, dim: int, rows: int):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(dim, dim), nn.LayerNorm(dim, eps=EPS)
        self.bias = nn.Parameter(torch.zeros(rows))

    def forward(self, x_NE: Tensor, table: nn.Module) -> Tensor:
        """`table`: the encoder's `WordTable`, which scores in its own forward, where sharded weights are whole."""
        return (table(self.LayerNorm(F.gelu(self.dense(x_NE)))) + self.bias).float()

"""An MLP on the pooled vector. Shape letters: B samples, D width of the encoder, K outputs."""

from __future__ import annotations

from torch import Tensor, nn

from models.heads.linear import PooledHead


class MLPHead(PooledHead):
    """Pooled vectors [B, D] -> [B, K]: Linear, ReLU, dropout, Linear (GiMP, section 2.4: an MLP on the class token)."""

    def __init__(self, in_dim: int, out_dim: int, hidden: int = 512, dropout: float = 0.25):
        super().__init__()
        self.fc1, self.drop, self.fc2 = nn.Linear(in_dim, hidden), nn.Dropout(dropout), nn.Linear(hidden, out_dim)

    def score(self, pooled_BD: Tensor) -> Tensor:
        return self.fc2(self.drop(self.fc1(pooled_BD).relu()))

"""Heads of the pooled vector alone, and the linear one. Shape letters: B samples, D width of the encoder, K outputs."""

from __future__ import annotations

from torch import Tensor, nn

from models.contract import Encoded, Head, HeadOutput

EPS = 1e-6


class PooledHead(Head):
    """A head of the pooled vector alone: `score` [B, D] -> [B, K]."""

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        return HeadOutput(self.score(encoded["pooled_BD"]))

    def score(self, pooled_BD: Tensor) -> Tensor:
        raise NotImplementedError


class LinearHead(PooledHead):
    """Pooled vectors [B, D] -> [B, K]: LayerNorm (if asked), then Linear, as MAE fine-tunes (He et al. 2022, A.1).

    Args:
        std: deviation of the first weights (truncated normal). So small, the first logits are all but equal, whatever
            the scale of the features. None: PyTorch's own first weights.
    """

    def __init__(self, in_dim: int, out_dim: int, norm: bool = True, std: float | None = 2e-5):
        super().__init__()
        self.norm: nn.Module = nn.LayerNorm(in_dim, eps=EPS) if norm else nn.Identity()
        self.out = nn.Linear(in_dim, out_dim)
        if std is not None:
            nn.init.trunc_normal_(self.out.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(self.out.bias)

    def score(self, pooled_BD: Tensor) -> Tensor:
        return self.out(self.norm(pooled_BD))

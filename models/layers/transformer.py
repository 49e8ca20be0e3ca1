"""A pre-norm transformer block. Shape letters: B batch, L tokens, C width."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.attention import SelfAttention
from models.layers.checkpointing import checkpointed


class FeedForward(nn.Sequential):
    """Linear - GELU - Linear, `ratio` times wider inside."""

    def __init__(self, dim: int, ratio: float = 4.0, dropout: float = 0.0):
        inner = round(dim * ratio)
        super().__init__(
            nn.Linear(dim, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, dim), nn.Dropout(dropout)
        )


class Block(nn.Module):
    """x + MSA(LN(x)), then x + FFN(LN(x))."""

    def __init__(self, dim: int, heads: int, ratio: float = 4.0, dropout: float = 0.0, eps: float = 1e-6):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, heads, dropout)
        self.drop = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.ffn = FeedForward(dim, ratio, dropout)

    def forward(self, x_BLC: Tensor, real_BL: Tensor | None = None) -> Tensor:
        return checkpointed(self._forward, x_BLC, real_BL)

    def _forward(self, x_BLC: Tensor, real_BL: Tensor | None) -> Tensor:
        x_BLC = x_BLC + self.drop(self.attn(self.norm1(x_BLC), real_BL))
        return x_BLC + self.ffn(self.norm2(x_BLC))


class PostNormBlock(nn.Module):
    """LN(x + MSA(x)), then LN(x + FFN(x)) with ReLU inside (Vaswani et al. 2017); first weights of attention as PyTorch's own layer."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float = 0.0):
        super().__init__()
        self.attn = SelfAttention(dim, heads, dropout)
        nn.init.xavier_uniform_(self.attn.qkv.weight)
        nn.init.zeros_(self.attn.qkv.bias)
        nn.init.zeros_(self.attn.out.bias)
        self.drop = nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, dim))

    def forward(self, x_BLC: Tensor) -> Tensor:
        x_BLC = self.norm1(x_BLC + self.drop(self.attn(x_BLC)))
        return self.norm2(x_BLC + self.drop(self.ffn(x_BLC)))

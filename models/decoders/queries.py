"""A pre-norm transformer decoder: queries ask each other, then the image (Vaswani et al. 2017, with the norms of Xiong et al. 2020).

It computes what `torch.nn.TransformerDecoder` of layers with `norm_first` does, whose attention reads weights of a module that it does not
call, which sharded weights do not allow.

Shape letters: B samples, E queries, L tokens that are looked at, C width.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.attention import SelfAttention, attention, merge_heads, split_heads
from models.layers.checkpointing import checkpointed


class QueryLayer(nn.Module):
    """x + attention(LN(x)), x + attention(LN(x), tokens), x + W2 ReLU(W1 LN(x))."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.attn = SelfAttention(dim, heads, dropout)
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.ffn = nn.Sequential(nn.Linear(dim, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, dim))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BEC: Tensor, token_BLC: Tensor) -> Tensor:
        return checkpointed(self._forward, x_BEC, token_BLC)

    def _forward(self, x_BEC: Tensor, token_BLC: Tensor) -> Tensor:
        x_BEC = x_BEC + self.drop(self.attn(self.norm1(x_BEC)))
        x_BEC = x_BEC + self.drop(self._looked(self.norm2(x_BEC), token_BLC))
        return x_BEC + self.drop(self.ffn(self.norm3(x_BEC)))

    def _looked(self, x_BEC: Tensor, token_BLC: Tensor) -> Tensor:
        k_BLC, v_BLC = self.key_value(token_BLC).chunk(2, -1)
        q, k, v = (split_heads(y, self.heads) for y in (self.query(x_BEC), k_BLC, v_BLC))
        return self.out(merge_heads(attention(q, k, v, dropout=self.rate if self.training else 0.0)))


class QueryDecoder(nn.Module):
    """Queries [B, E, C] and tokens [B, L, C] -> what the queries became, normalised, [B, E, C]."""

    def __init__(self, dim: int, depth: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(QueryLayer(dim, heads, inner, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BEC: Tensor, token_BLC: Tensor) -> Tensor:
        for layer in self.layers:
            x_BEC = layer(x_BEC, token_BLC)
        return self.norm(x_BEC)

"""Genes predicted fragment by fragment from tokens, in place of a report that is written word by word.

Shape letters: B samples, T fragments, F genes in a fragment, L tokens, C width, K bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.attention import attention, merge_heads, split_heads
from models.layers.transformer import FeedForward
from models.parallel import global_mean


class CrossBlock(nn.Module):
    """x + Attention(LN(x), tokens), then x + FFN(LN(x))."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.ffn, self.drop = FeedForward(dim, 2.0, dropout), nn.Dropout(dropout)

    def forward(self, x_BTC: Tensor, tokens_BLC: Tensor, real_BL: Tensor) -> Tensor:
        q, k, v = (
            split_heads(y, self.heads)
            for y in (self.query(self.norm1(x_BTC)), *self.key_value(tokens_BLC).chunk(2, -1))
        )
        x_BTC = x_BTC + self.drop(self.out(merge_heads(attention(q, k, v, real_BL[:, None, None]))))
        return x_BTC + self.ffn(self.norm2(x_BTC))


class FragmentDecoder(nn.Module):
    """Tokens [B, L, C], which are real [B, L] -> numbers of each gene of each fragment, [B, T, F, numbers].

    A learned query a fragment looks at the tokens, `depth` times; one linear layer, the same for all fragments, says their genes.
    """

    def __init__(
        self, fragments: int, fragment: int, dim: int, heads: int, depth: int, dropout: float, numbers: int = 1
    ):
        super().__init__()
        self.query_TC = nn.Parameter(torch.randn(fragments, dim) * 0.02)
        self.blocks = nn.ModuleList(CrossBlock(dim, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, fragment * numbers)
        self.numbers = numbers

    def forward(self, tokens_BLC: Tensor, real_BL: Tensor) -> Tensor:
        x_BTC = self.query_TC.expand(len(tokens_BLC), -1, -1)
        for block in self.blocks:
            x_BTC = block(x_BTC, tokens_BLC, real_BL)
        return self.out(self.norm(x_BTC)).unflatten(-1, (-1, self.numbers))


def in_fragments(x_BF: Tensor, fragment: int) -> Tensor:
    """Vectors [B, F] in pieces [B, T, fragment]; what fills the last one up is 0, and of a mask False."""
    return nn.functional.pad(x_BF, (0, -x_BF.shape[1] % fragment)).unflatten(1, (-1, fragment))


def fragment_l1(said_BTF: Tensor, z_BTF: Tensor, asked_BTF: Tensor, weight_B: Tensor) -> Tensor:
    """Mean L1 over the genes that are asked for, of the samples of all ranks that count and are asked for any."""
    return asked_mean((said_BTF.float() - z_BTF.float()).abs(), asked_BTF, weight_B)


def fragment_bins(logits_BTFK: Tensor, z_BTF: Tensor, asked_BTF: Tensor, weight_B: Tensor) -> Tensor:
    """Cross-entropy of each gene's bin; bins hold equal shares of a normal distribution, which z-scores are taken to have."""
    K = logits_BTFK.shape[-1]
    edges = torch.special.ndtri(torch.arange(1, K, dtype=torch.float64) / K).float().to(z_BTF.device)
    bin_BTF = torch.bucketize(z_BTF.float().contiguous(), edges)
    loss_BTF = nn.functional.cross_entropy(logits_BTFK.float().movedim(-1, 1), bin_BTF, reduction="none")
    return asked_mean(loss_BTF, asked_BTF, weight_B)


def asked_mean(x_BTF: Tensor, asked_BTF: Tensor, weight_B: Tensor) -> Tensor:
    """Mean over what is asked of each sample, then over the samples of all ranks that count and are asked for anything; 0 without one."""
    count_B = asked_BTF.sum((1, 2))
    weight_B = weight_B.float() * (count_B > 0)
    value_B = (x_BTF * asked_BTF).sum((1, 2)) / count_B.clamp_min(1)
    return global_mean((value_B * weight_B).sum(), weight_B.sum())

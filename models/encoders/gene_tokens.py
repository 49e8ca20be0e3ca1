"""Genome encoders of MRM (section 3.2, "SNN encoder with self-attention blocks"): vectors of several genetic modalities to
tokens. The paper does not say how a vector becomes tokens; here it is cut into fragments.

Shape letters: B samples, F features of a modality, T tokens (fragments), S tokens with the class token, C width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.encoders.snn import SNN
from models.encoders.vit import Block
from models.init.first import xavier_linears
from models.layers.attention import attention, merge_heads
from models.layers.checkpointing import checkpointed
from models.transforms.expression import ExpressionOptions

EPS = 1e-6


class GeneTokenOptions(ExpressionOptions):
    """Of the encoder of genetic vectors."""

    encoder: Literal["snn_tok", "snn_vec"] = "snn_tok"
    """Fragments of the vectors as tokens with self-attention, or one vector from a plain SNN (no gene masking)."""
    dim: int | None = Bounded(None, ge=8)
    """Width of the gene encoder; None: as the image encoder. Another width adds a projection for matching."""
    depth: int = Bounded(4, ge=1)
    """Its transformer blocks, with as many heads as the image encoder's."""
    fragment: int = Bounded(128, ge=1)
    """Features that make one gene token."""
    hidden: int = Bounded(256, ge=1)
    """Hidden width of the SNN."""
    dropout: float = Bounded(0.25, ge=0, lt=1)
    """Its AlphaDropout."""

    def build(self, widths: Mapping[str, int], dim: int, heads: int) -> GeneTokens | GeneVector:
        """The encoder of vectors of these widths by name, `dim` wide where the options give no width of its own."""
        dim = self.dim or dim
        if self.encoder == "snn_vec":
            return GeneVector(widths, dim, self.hidden, self.dropout)
        return GeneTokens(widths, dim, self.depth, heads, self.fragment, self.hidden, self.dropout)


class MaskedBlock(Block):
    """The ViT's block, with keys that may be absent."""

    def forward(self, x_BSC: Tensor, real_BS: Tensor | None = None) -> Tensor:
        return checkpointed(self._masked, x_BSC, real_BS)

    def _masked(self, x_BSC: Tensor, real_BS: Tensor | None) -> Tensor:
        mask = None if real_BS is None else real_BS[:, None, None]
        seen = attention(*self.attn.heads_of(self.norm1(x_BSC)), mask)
        x_BSC = x_BSC + self.drop_path(self.attn.proj(merge_heads(seen)))
        return x_BSC + self.drop_path(self.mlp(self.norm2(x_BSC)))


class FragmentTokens(nn.Module):
    """{name: [B, F]} -> tokens [B, 1 + T, C], class token first, or [B, T, C] without one.

    A vector is padded with zeros and cut into fragments; one SNN a modality makes a token of each; a learned position
    and the modality's embedding are added. With `mask_token` one learned vector may stand in for what the SNN made.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        fragment: int,
        dim: int,
        hidden: int,
        dropout: float,
        cls_token: bool = True,
        mask_token: bool = False,
    ):
        super().__init__()
        self.fragment = fragment
        self.tokens = {name: math.ceil(width / fragment) for name, width in widths.items()}
        self.snn = nn.ModuleDict({name: SNN(fragment, dim, (hidden,), dropout) for name in widths})
        self.cls_C = nn.Parameter(torch.randn(dim) * 0.02) if cls_token else None
        self.position_TC = nn.Parameter(torch.randn(sum(self.tokens.values()), dim) * 0.02)
        self.modality_MC = nn.Parameter(torch.randn(len(self.tokens), dim) * 0.02)
        self.mask_C = nn.Parameter(torch.randn(dim) * 0.02) if mask_token else None

    def forward(self, values: dict[str, Tensor], hidden_BT: Tensor | None = None) -> Tensor:
        """hidden_BT: fragments of which nothing is seen, counted over all modalities."""
        B = len(next(iter(values.values())))
        made, start = [], 0
        for i, (name, count) in enumerate(self.tokens.items()):
            x_BF = values[name]
            x_BTF = F.pad(x_BF, (0, count * self.fragment - x_BF.shape[1])).view(B * count, self.fragment)
            x_BTC = self.snn[name](x_BTF)[0].view(B, count, -1)
            if hidden_BT is not None:
                assert self.mask_C is not None
                x_BTC = torch.where(hidden_BT[:, start : start + count, None], self.mask_C.to(x_BTC.dtype), x_BTC)
            made.append(x_BTC + self.modality_MC[i])
            start += count
        x_BTC = torch.cat(made, 1) + self.position_TC
        if self.cls_C is None:
            return x_BTC
        return torch.cat([self.cls_C.expand(B, 1, -1), x_BTC], 1)


class GeneTokens(nn.Module):
    """Fragment tokens, then transformer blocks with the ViT's names (`snn_tok`)."""

    first = 1  # tokens before the fragments: the class token

    def __init__(
        self,
        widths: Mapping[str, int],
        dim: int,
        depth: int,
        heads: int,
        fragment: int = 128,
        hidden: int = 256,
        dropout: float = 0.25,
        mask_token: bool = False,
    ):
        super().__init__()
        self.widths, self.out = dict(widths), fragment
        self.embed = FragmentTokens(widths, fragment, dim, hidden, dropout, mask_token=mask_token)
        self.blocks = nn.ModuleList(MaskedBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        xavier_linears(self.blocks)

    def forward(self, values: dict[str, Tensor], real_BS: Tensor, hidden_BT: Tensor | None = None) -> Tensor:
        """Normalised tokens [B, 1 + T, C] of vectors by name; `real_BS`: those that are looked at, `hidden_BT`: see `FragmentTokens`."""
        x_BSC = self.embed(values, hidden_BT)
        for block in self.blocks:
            x_BSC = block(x_BSC, real_BS)
        return self.norm(x_BSC)

    def real(self, present: Mapping[str, Tensor]) -> Tensor:
        """[B, 1 + T]: the tokens of the modalities a sample has; the class token where it has any."""
        parts = [present[n][:, None].expand(-1, count) for n, count in self.embed.tokens.items()]
        real_BT = torch.cat(parts, 1)
        return torch.cat([real_BT.any(1, keepdim=True), real_BT], 1)

    def split(self, predicted_BSF: Tensor) -> dict[str, Tensor]:
        """Predictions for every token as one vector [B, F] a modality."""
        parts = predicted_BSF[:, 1:].split(list(self.embed.tokens.values()), 1)
        return {n: p.flatten(1)[:, : self.widths[n]] for n, p in zip(self.widths, parts, strict=True)}


class GeneVector(nn.Module):
    """All features through one SNN to a single token (`snn_vec`); there is no relation between gene tokens to mask."""

    first = 0

    def __init__(self, widths: Mapping[str, int], dim: int, hidden: int = 256, dropout: float = 0.25):
        super().__init__()
        self.widths, self.out = dict(widths), sum(widths.values())
        self.embed = _OneToken(self.out, dim, hidden, dropout)
        self.blocks = nn.ModuleList()
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def real(self, present: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([present[n] for n in self.widths], 1).any(1, keepdim=True)

    def split(self, predicted_B1F: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.widths, predicted_B1F[:, 0].split(list(self.widths.values()), 1), strict=True))


class _OneToken(nn.Module):
    def __init__(self, features: int, dim: int, hidden: int, dropout: float):
        super().__init__()
        self.snn = SNN(features, dim, (hidden,), dropout)

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        return self.snn(torch.cat(list(values.values()), 1))[1]

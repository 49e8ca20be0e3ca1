"""The report decoder of Masked Record Modeling: a small BERT (Devlin et al. 2019) that also sees the radiograph.

Shape letters: B reports, L token places, C width, V vocabulary, T chosen places of the whole batch.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attention import attention, merge_heads, split_heads
from models.layers.checkpointing import checkpointed
from models.transforms.text import MASK, PAD

EPS = 1e-12  # of BERT's layer norms
InitText = Literal["normal", "xavier", "xavier_tied"]


class PostNormBlock(nn.Module):
    """LN(x + MSA(x)), then LN(x + FFN(x)): the original Transformer's order, as in BERT."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.fc1 = nn.Linear(dim, inner)
        self.fc2 = nn.Linear(inner, dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLC: Tensor, real_BL: Tensor) -> Tensor:
        return checkpointed(self._forward, x_BLC, real_BL)

    def _forward(self, x_BLC: Tensor, real_BL: Tensor) -> Tensor:
        q, k, v = (split_heads(x, self.heads) for x in self.qkv(x_BLC).chunk(3, -1))
        seen = attention(q, k, v, real_BL[:, None, None, :], self.dropout if self.training else 0.0)
        x_BLC = self.norm1(x_BLC + self.drop(self.proj(merge_heads(seen))))
        return self.norm2(x_BLC + self.drop(self.fc2(F.gelu(self.fc1(x_BLC)))))


class ReportDecoder(nn.Module):
    """Ids with hidden places, and one vector of the radiograph -> scores of the words at chosen places, [T, V].

    Every use of the word matrix (look-up and, where tied, output) lies in this module's forward, where sharded weights are whole.

    Args:
        positions: learned, or fixed 1-D sine-cosine (the paper's text says fixed, its appendix and code learned).
        init: `normal` N(0, 0.02); `xavier` Xavier-uniform in all linear layers, an output matrix of its own among them, the look-up
            N(0, 0.02); `xavier_tied` Xavier-uniform in the look-up too.
        tie: whether words are scored by the matrix that they are looked up in (BERT), or by one of its own.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        length: int,
        dim: int,
        depth: int,
        heads: int,
        inner: int,
        dropout: float,
        positions: Literal["learned", "sincos"],
        init: InitText,
        tie: bool = True,
    ):
        super().__init__()
        self.word_VC = nn.Parameter(torch.empty(vocabulary, dim))
        self.out_VC = None if tie else nn.Parameter(torch.empty(vocabulary, dim))
        self.segment_2C = nn.Parameter(torch.empty(2, dim))
        self.out_bias_V = nn.Parameter(torch.zeros(vocabulary))
        if positions == "learned":
            self.position_LC = nn.Parameter(torch.empty(length, dim))
        else:
            self.register_buffer("position_LC", sincos_1d(length, dim))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(PostNormBlock(dim, heads, inner, dropout) for _ in range(depth))
        self.transform = nn.Linear(dim, dim)
        self.transform_norm = nn.LayerNorm(dim, eps=EPS)
        self._initialise(init)

    def _initialise(self, init: InitText) -> None:
        for table in (self.word_VC, self.segment_2C, self.position_LC):
            if isinstance(table, nn.Parameter):
                nn.init.normal_(table, std=0.02)
        nn.init.zeros_(self.word_VC.data[PAD])
        for name, m in self.named_modules():
            if not isinstance(m, nn.Linear):
                continue
            nn.init.zeros_(m.bias)
            # BERT's query, key and value are three matrices, each with a fan of its own.
            for part in m.weight.data.chunk(3 if name.endswith("qkv") else 1):
                nn.init.normal_(part, std=0.02) if init == "normal" else nn.init.xavier_uniform_(part)
        if self.out_VC is not None:
            nn.init.normal_(self.out_VC, std=0.02) if init == "normal" else nn.init.xavier_uniform_(self.out_VC)
        if init == "xavier_tied":
            nn.init.xavier_uniform_(self.word_VC)

    def forward(
        self, ids_BL: Tensor, hidden_BL: Tensor, image_BC: Tensor, image_to_BL: Tensor | None, at_BL: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Scores at the places `at_BL` (None: at all, [B * L, V]), and the mean visible word vector [B, C].

        image_to_BL: places that the radiograph's vector is added to; None adds it to every place.
        """
        given_BL = ids_BL.masked_fill(hidden_BL, MASK)
        words_BLC = F.embedding(given_BL, self.word_VC, padding_idx=PAD)
        x_BLC = words_BLC + self.position_LC.to(words_BLC.dtype) + self.segment_2C[0]
        x_BLC = self.drop(self.norm(x_BLC))
        context_BC = _mean(x_BLC, (ids_BL != PAD) & ~hidden_BL)
        image_B1C = image_BC[:, None]
        x_BLC = x_BLC + (image_B1C if image_to_BL is None else image_B1C * image_to_BL[..., None])
        real_BL = ids_BL != PAD
        for block in self.blocks:
            x_BLC = block(x_BLC, real_BL)
        x_TC = x_BLC.flatten(0, 1) if at_BL is None else x_BLC[at_BL]
        x_TC = self.transform_norm(F.gelu(self.transform(x_TC)))
        scoring_VC = self.word_VC if self.out_VC is None else self.out_VC
        return F.linear(x_TC, scoring_VC, self.out_bias_V), context_BC


def _mean(x_BLC: Tensor, at_BL: Tensor) -> Tensor:
    share_BL = at_BL / at_BL.sum(1, keepdim=True).clamp_min(1)
    return torch.einsum("blc,bl->bc", x_BLC, share_BL.to(x_BLC.dtype))


def sincos_1d(length: int, dim: int) -> Tensor:
    """Sine and cosine of place / 10000^(2i / dim), interleaved (Vaswani et al. 2017, section 3.5), [length, dim]."""
    rate = 10_000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim].float()

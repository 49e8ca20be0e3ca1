"""An autoregressive decoder of reports over image tokens, one direction or both (VirTex, Desai & Johnson, CVPR 2021, as in REFERS).

A layer is that of `nn.TransformerDecoder` with norms behind its sums (Vaswani et al. 2017), its projections as linear layers of their own,
so that sharded weights are whole where they are used. Words are looked up and scored by one matrix.

Shape letters: B reports, L token places, M memory tokens, C width, D image width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Options
from models.layers.attention import attention, merge_heads, split_heads
from models.layers.checkpointing import checkpointed
from models.transforms.text import PAD

EPS_WORDS = 1e-8  # of the norm over words and positions, as published


class CaptionOptions(Options):
    """Of the decoder that writes the report."""

    dim: int = Bounded(1024, ge=4)
    """Width of the decoder."""
    depth: int = Bounded(1, ge=1)
    """Its layers."""
    heads: int = Bounded(16, ge=1)
    """Its attention heads."""
    inner: int | None = Bounded(None, ge=1)
    """Width of its feed-forward part; null: four times `dim`."""
    dropout: float = Bounded(0.1, ge=0, lt=1)
    """Dropout of words, of layers' outputs and of attention."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.dim % self.heads:
            yield f"{where}.dim: {self.dim} is not a multiple of {where}.heads ({self.heads}); make it one"


class CaptionLayer(nn.Module):
    """LN(x + causal self-attention), LN(x + attention to the image), LN(x + W2 GELU(W1 x))."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.self_qkv, self.self_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.cross_q, self.cross_kv, self.cross_out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.linear1, self.linear2 = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLC: Tensor, memory_BMC: Tensor, sees_BLL: Tensor, there_BM: Tensor) -> Tensor:
        return checkpointed(self._forward, x_BLC, memory_BMC, sees_BLL, there_BM)

    def _forward(self, x_BLC: Tensor, memory_BMC: Tensor, sees_BLL: Tensor, there_BM: Tensor) -> Tensor:
        drop = self.dropout if self.training else 0.0
        q, k, v = (split_heads(x, self.heads) for x in self.self_qkv(x_BLC).chunk(3, -1))
        own_BLC = self.self_out(merge_heads(attention(q, k, v, sees_BLL[:, None], drop)))
        x_BLC = self.norm1(x_BLC + self.drop(own_BLC))
        q = split_heads(self.cross_q(x_BLC), self.heads)
        k, v = (split_heads(x, self.heads) for x in self.cross_kv(memory_BMC).chunk(2, -1))
        seen_BLC = self.cross_out(merge_heads(attention(q, k, v, there_BM[:, None, None], drop)))
        x_BLC = self.norm2(x_BLC + self.drop(seen_BLC))
        return self.norm3(x_BLC + self.drop(self.linear2(self.drop(F.gelu(self.linear1(x_BLC))))))


class CaptionDecoder(nn.Module):
    """Scores of the next word at each place, from left to right, and with `both` from right to left too.

    The second direction has layers of its own and shares the image's projection, words, positions and scores.

    Args:
        vocabulary: rows of the word table; id 0 is no word: its vector is zero and nothing scores it.
        places: tokens that a report may have.
        width: D, of the image's tokens.
    """

    def __init__(self, vocabulary: int, places: int, width: int, options: CaptionOptions, both: bool):
        super().__init__()
        o = options
        self.visual = nn.Linear(width, o.dim)
        # Every use of both tables lies in this module's forward, where sharded weights are whole.
        self.word_VC = nn.Parameter(torch.empty(vocabulary, o.dim))
        self.position_LC = nn.Parameter(torch.empty(places, o.dim))
        self.norm, self.drop = nn.LayerNorm(o.dim, eps=EPS_WORDS), nn.Dropout(o.dropout)
        self.forwards, self.backwards = (
            nn.ModuleList(
                CaptionLayer(o.dim, o.heads, o.inner or 4 * o.dim, o.dropout) for _ in range(o.depth if there else 0)
            )
            for there in (True, both)
        )
        self.bias_V = nn.Parameter(torch.zeros(vocabulary))
        self._initialise()

    def _initialise(self) -> None:
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=0.02)
                nn.init.zeros_(m.bias)
        for table in (self.word_VC, self.position_LC):
            nn.init.normal_(table, std=0.02)
        nn.init.zeros_(self.word_VC.data[PAD])

    def forward(self, image_BMD: Tensor, there_BM: Tensor, ids_BL: Tensor, length_B: Tensor) -> dict[str, Tensor]:
        """{direction: -log p of the next word at each place, [B, L - 1] float32, 0 where there is none}.

        Args:
            there_BM: False for tokens of an image that is not there. length_B: tokens of each report with its first and its end.
        """
        memory_BMC = self.visual(image_BMD)
        found = {"forward": self._direction(self.forwards, memory_BMC, there_BM, ids_BL, length_B)}
        if len(self.backwards):
            turned_BL = turned(ids_BL, length_B)
            found["backward"] = self._direction(self.backwards, memory_BMC, there_BM, turned_BL, length_B)
        return found

    def _direction(
        self, layers: nn.ModuleList, memory_BMC: Tensor, there_BM: Tensor, ids_BL: Tensor, length_B: Tensor
    ) -> Tensor:
        logits_BLV = self.scores(layers, memory_BMC, there_BM, ids_BL, length_B)
        logits_BVL = logits_BLV[:, :-1].float().transpose(1, 2)
        return F.cross_entropy(logits_BVL, ids_BL[:, 1:], ignore_index=PAD, reduction="none")

    def scores(
        self, layers: nn.ModuleList, memory_BMC: Tensor, there_BM: Tensor, ids_BL: Tensor, length_B: Tensor
    ) -> Tensor:
        """[B, L, V]: at each place, scores of the word behind it."""
        place_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        words_BLC = F.embedding(ids_BL, self.word_VC, padding_idx=PAD)
        x_BLC = self.drop(self.norm(words_BLC + self.position_LC)) * (ids_BL != PAD)[..., None].to(words_BLC.dtype)
        sees_BLL = (place_L[:, None] >= place_L) & (place_L < length_B[:, None])[:, None]
        for layer in layers:
            x_BLC = layer(x_BLC, memory_BMC, sees_BLL, there_BM)
        return F.linear(x_BLC, self.word_VC, self.bias_V)


def turned(ids_BL: Tensor, length_B: Tensor) -> Tensor:
    """Reports from their end to their beginning, padding behind."""
    place_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
    at_BL = torch.where(place_L < length_B[:, None], length_B[:, None] - 1 - place_L, place_L)
    return ids_BL.gather(1, at_BL)

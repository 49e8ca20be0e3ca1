"""Words as tokens beside the patches of an image (Geng et al. 2022): looked up, with fixed places and one embedding of their kind.

Shape letters: B texts, K chosen places, L token places, V vocabulary, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.encoders.positions import sincos


class WordTokens(nn.Module):
    """Ids [B, L] -> tokens [B, K, D] of the places `keep_BK`; a vector for each of V words N(0, 1), as published."""

    places_LD: Tensor

    def __init__(self, vocabulary: int, length: int, dim: int):
        super().__init__()
        self.words = nn.Embedding(vocabulary, dim)
        self.kind_D = nn.Parameter(torch.randn(dim) * 0.02)
        self.register_buffer("places_LD", sincos(torch.arange(length), dim), persistent=False)

    def forward(self, ids_BL: Tensor, keep_BK: Tensor) -> Tensor:
        x_BKD = self.words(ids_BL.long().gather(1, keep_BK)) + self.kind_D
        return x_BKD + self.places_LD.to(x_BKD.dtype)[keep_BK]

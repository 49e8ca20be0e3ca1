"""Plain networks over a gene vector (TANGLE, Jaume et al., CVPR 2024; ContIG, Taleb et al., CVPR 2022).

Shape letters: B samples, G genes, E width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from models.layers.batch_norm import GlobalBatchNorm1d


class GeneMLP(nn.Module):
    """[B, G] -> [B, E]: twice Linear, LayerNorm, ReLU, dropout, then Linear; `hidden` wide inside."""

    def __init__(self, genes: int, dim: int, hidden: int, dropout: float = 0.2):
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in in (genes, hidden):
            layers += [nn.Linear(fan_in, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, dim))

    def forward(self, genes_BG: Tensor) -> Tensor:
        return self.layers(genes_BG)


class NormedLayers(nn.Module):
    """[B, G] -> [B, E], E the last of `widths`: Linear, ReLU, then a norm, for each of them; without any, the vector itself.

    Args:
        norm: "batch" (over all ranks), or "layer", in which no sample depends on another.
    """

    def __init__(self, genes: int, widths: Sequence[int], norm: Literal["batch", "layer"]):
        super().__init__()
        kind = GlobalBatchNorm1d if norm == "batch" else nn.LayerNorm
        layers: list[nn.Module] = []
        for fan_in, width in zip((genes, *widths), widths, strict=False):
            layers += [nn.Linear(fan_in, width), nn.ReLU(), kind(width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, genes_BG: Tensor) -> Tensor:
        return self.layers(genes_BG)

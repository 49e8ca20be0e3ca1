"""A plain network over a gene vector (TANGLE, Jaume et al., CVPR 2024). Shape letters: B samples, G genes, E width."""

from __future__ import annotations

from torch import Tensor, nn


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

"""Self-normalising network over a gene vector, the ablation row "SNN" of GiMP (Klambauer et al. 2017).

Shape letters: B samples, G genes, C width.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class SNN(nn.Module):
    """Genes [B, G] -> (vector [B, C], the same as one token [B, 1, C]).

    Layers of Linear - ELU - AlphaDropout with weights from N(0, 1 / fan_in) and no bias at the start, the form in
    which the histology-genomics literature (Pathomic Fusion, PORPOISE) uses it.
    """

    def __init__(self, genes: int, dim: int, hidden: tuple[int, ...] = (256,), dropout: float = 0.25):
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, width in pairwise((genes, *hidden, dim)):
            linear = nn.Linear(fan_in, width)
            nn.init.normal_(linear.weight, std=fan_in**-0.5)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ELU(), nn.AlphaDropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, genes_BG: Tensor) -> tuple[Tensor, Tensor]:
        x_BC = self.layers(genes_BG)
        return x_BC, x_BC[:, None]

"""Self-normalising network over a gene vector, the ablation row "SNN" of GiMP (Klambauer et al. 2017).

Shape letters: B samples, G genes, C width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

Act = Literal["elu", "selu"]


class SNN(nn.Module):
    """Genes [B, G] -> (vector [B, C], the same as one token [B, 1, C]).

    Layers of Linear - ELU - AlphaDropout with weights from N(0, 1 / fan_in) and no bias at the start, the form in
    which the histology-genomics literature (Pathomic Fusion, PORPOISE) uses it.

    Args:
        act: AlphaDropout's constants are those of SELU. With ELU features shrink from layer to layer and, in evaluation, stand at half
            the scale of training; `selu` keeps unit variance in both.
        start: `normal` as above, or PyTorch's own first weights (PORPOISE, MCAT).
    """

    def __init__(
        self,
        genes: int,
        dim: int,
        hidden: tuple[int, ...] = (256,),
        dropout: float = 0.25,
        act: Act = "elu",
        start: Literal["normal", "torch"] = "normal",
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, width in pairwise((genes, *hidden, dim)):
            linear = nn.Linear(fan_in, width)
            if start == "normal":
                nn.init.normal_(linear.weight, std=fan_in**-0.5)
                nn.init.zeros_(linear.bias)
            layers += [linear, nn.SELU() if act == "selu" else nn.ELU(), nn.AlphaDropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, genes_BG: Tensor) -> tuple[Tensor, Tensor]:
        x_BC = self.layers(genes_BG)
        return x_BC, x_BC[:, None]

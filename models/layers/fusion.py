"""Fusion of two vectors by the product of all their numbers, each gated by both, as PORPOISE, MCAT and Pathomic Fusion have it.

Shape letters: B samples, D width of a side, R reduced width of a side, P width of the product, H width of the fused vector.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn


class Side(NamedTuple):
    """One side of the fusion: its width, the width that it is reduced to, and whether it is gated by both sides."""

    width: int
    reduced: int
    gated: bool


class GatedSide(nn.Module):
    """v_own [B, D], v_1 and v_2 -> o [B, R], and the mean of its gate [B], NaN without one.

    Gated: o = ReLU(W_o (sigmoid(z) * h)) with h = ReLU(W_h v_own) and z linear in [v_1 ; v_2], or bilinear in both. Without a gate
    o = ReLU(W_o h) (`embedded`), or ReLU(W_o v_own), which then cannot be reduced.
    """

    def __init__(self, side: Side, widths: tuple[int, int], bilinear: bool, embedded: bool, dropout: float):
        super().__init__()
        assert side.gated or embedded or side.width == side.reduced, "a side without gate and embedding keeps its width"
        R = side.reduced
        self.embed = nn.Sequential(nn.Linear(side.width, R), nn.ReLU()) if side.gated or embedded else None
        self.gate: nn.Module | None = None
        if side.gated:
            self.gate = nn.Bilinear(*widths, R) if bilinear else nn.Linear(sum(widths), R)
        self.bilinear = bilinear
        self.out = nn.Sequential(nn.Linear(R, R), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, own_BD: Tensor, first_BD: Tensor, second_BD: Tensor) -> tuple[Tensor, Tensor]:
        h_BR = own_BD if self.embed is None else self.embed(own_BD)
        open_B = own_BD.new_full((len(own_BD),), torch.nan)
        if self.gate is not None:
            z_BR = self.gate(first_BD, second_BD) if self.bilinear else self.gate(torch.cat([first_BD, second_BD], 1))
            gate_BR = z_BR.sigmoid()
            h_BR, open_B = gate_BR * h_BR, gate_BR.detach().mean(1)
        return self.out(h_BR), open_B


class KroneckerFusion(nn.Module):
    """v_1 [B, D1], v_2 [B, D2] -> [B, H]: the product of [o_1 ; 1] and [o_2 ; 1], ReLU(Linear), a skip join, ReLU(Linear).

    The product has o_1 as its slow index; the ones keep both sides alone in it.

    Args:
        skip: what is joined before the last layer: nothing, v_1 and v_2 (PORPOISE), or o_1 and o_2 with their ones (Pathomic Fusion).
        bilinear: the gate (`GatedSide`).
        embedded: whether a side without gate is embedded first (PORPOISE) or not (Pathomic Fusion).
        dropout: behind both o and behind the product; `encoder_dropout` behind each of the last two layers.
    """

    def __init__(
        self,
        first: Side,
        second: Side,
        hidden: int,
        skip: Literal["none", "inputs", "outputs"],
        bilinear: bool = False,
        embedded: bool = True,
        dropout: float = 0.25,
        encoder_dropout: float = 0.0,
    ):
        super().__init__()
        self.skip = skip
        widths = (first.width, second.width)
        self.first = GatedSide(first, widths, bilinear, embedded, dropout)
        self.second = GatedSide(second, widths, bilinear, embedded, dropout)
        self.drop = nn.Dropout(dropout)
        ones = first.reduced + 1, second.reduced + 1
        joined = {"none": 0, "inputs": sum(widths), "outputs": sum(ones)}[skip]
        self.encoder1 = nn.Sequential(nn.Linear(ones[0] * ones[1], hidden), nn.ReLU(), nn.Dropout(encoder_dropout))
        self.encoder2 = nn.Sequential(nn.Linear(hidden + joined, hidden), nn.ReLU(), nn.Dropout(encoder_dropout))

    def forward(self, first_BD: Tensor, second_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The fused vector, and how far the gate of each side is open [B, 2]: the mean of its numbers, NaN for a side without one."""
        one_B1 = first_BD.new_ones(len(first_BD), 1)
        (o1_BR, open1_B), (o2_BR, open2_B) = (
            side(own_BD, first_BD, second_BD) for side, own_BD in ((self.first, first_BD), (self.second, second_BD))
        )
        o1_BR, o2_BR = torch.cat([o1_BR, one_B1], 1), torch.cat([o2_BR, one_B1], 1)
        product_BP = (o1_BR[:, :, None] * o2_BR[:, None]).flatten(1)
        x_BH = self.encoder1(self.drop(product_BP))
        if self.skip == "inputs":
            x_BH = torch.cat([x_BH, first_BD, second_BD], 1)
        elif self.skip == "outputs":
            x_BH = torch.cat([x_BH, o1_BR, o2_BR], 1)
        return self.encoder2(x_BH), torch.stack([open1_B, open2_B], 1)


class JoinFusion(nn.Sequential):
    """[v_1 ; v_2] -> [B, H] by two layers of ReLU(Linear)."""

    def __init__(self, widths: tuple[int, int], hidden: int):
        super().__init__(nn.Linear(sum(widths), hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())

    def forward(self, first_BD: Tensor, second_BD: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The fused vector; gates, as `KroneckerFusion` gives them, there are none."""
        return super().forward(torch.cat([first_BD, second_BD], 1)), first_BD.new_full((len(first_BD), 2), torch.nan)


def normal_by_fan_in(module: nn.Module) -> None:
    """Weights from N(0, 1 / fan_in) and biases 0 for every linear layer (bilinear ones keep PyTorch's own), as Pathomic Fusion starts."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=m.in_features**-0.5)
            nn.init.zeros_(m.bias)

"""The head of systems that learn from their own moving average (DINO, Caron et al. 2021; iBOT, Zhou et al. 2022).

Shape letters: N tokens, D and C widths, K outputs.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from models.losses.prototypes import Prototypes


class DistillationHead(nn.Module):
    """[N, D] -> [N, K]: three linear layers with GELU between, the length taken out, then K directions, each with a gain.

    Args:
        dim, hidden, bottleneck, outputs: widths before, inside, of the unit vectors, and after.
        shared: class and patch tokens have the same directions; otherwise patch tokens have their own.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, outputs: int, shared: bool = True):
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise((dim, hidden, hidden, bottleneck)):
            linear = nn.Linear(a, b)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.last = Prototypes(bottleneck, outputs, gain=True)
        self.patch_last = None if shared else Prototypes(bottleneck, outputs, gain=True)

    def forward(self, x_ND: Tensor, patches: bool = False, still: bool = False) -> Tensor:
        """Float32. `still`: the directions get a gradient of 0."""
        last = self.patch_last if patches and self.patch_last is not None else self.last
        return last(self.mlp(x_ND), still)

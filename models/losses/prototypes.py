"""Two views of a sample foretell each other's cluster (SwAV's swapped prediction, as in MGCA, Wang et al., NeurIPS 2022, section 3.3).

Shape letters: B samples of this rank, G samples of all ranks, C width, K prototypes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.parallel import gather


class Prototypes(nn.Module):
    """Vectors [B, C] -> cosines with K learned prototypes, [B, K].

    Args:
        gain: a learned factor for each prototype, 1 at first: a linear layer with weight normalisation (Salimans and Kingma 2016).
    """

    def __init__(self, dim: int, prototypes: int, gain: bool = False):
        super().__init__()
        self.weight_KC = nn.Parameter(torch.randn(prototypes, dim) * dim**-0.5)
        self.gain_K = nn.Parameter(torch.ones(prototypes)) if gain else None

    def forward(self, x_BC: Tensor, still: bool = False) -> Tensor:
        """`still`: the prototypes get a gradient of 0."""
        unit_KC = F.normalize(self.weight_KC.float(), dim=-1)
        if self.gain_K is not None:
            unit_KC = unit_KC * self.gain_K.float()[:, None]
        # Not None: every rank's engine waits for a gradient of each parameter.
        unit_KC = unit_KC.detach() + 0 * unit_KC if still else unit_KC
        return F.normalize(x_BC.float(), dim=-1) @ unit_KC.T


@torch.no_grad()
def codes(score_GK: Tensor, real_G: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft clusters [G, K] that share the real samples evenly among prototypes, by Sinkhorn's iterations; 0 where none is real."""
    # Less the largest, or the exponential leaves float32; the iterations take any common factor out again.
    q_GK = ((score_GK.float() - score_GK.float().amax()) / epsilon).exp() * real_G[:, None]
    tiny, K = torch.finfo(torch.float32).tiny, q_GK.shape[1]
    for _ in range(iterations):
        q_GK = q_GK / q_GK.sum(0, keepdim=True).clamp_min(tiny) / K
        q_GK = q_GK / q_GK.sum(1, keepdim=True).clamp_min(tiny) / real_G.sum().clamp_min(1)
    return q_GK * real_G.sum().clamp_min(1)


def swapped(a_BK: Tensor, b_BK: Tensor, weight_B: Tensor, tau: float = 0.2, epsilon: float = 0.05) -> Tensor:
    """Mean over samples of all ranks of both cross-entropies, a's code foretold by b and b's by a, halved; ln K at chance."""
    a_GK, b_GK, real_G = gather(a_BK), gather(b_BK), gather(weight_B > 0)
    each_G = sum(
        -(codes(x, real_G, epsilon) * (y / tau).log_softmax(1)).sum(1) for x, y in ((a_GK, b_GK), (b_GK, a_GK))
    )
    assert isinstance(each_G, Tensor)
    return (each_G * real_G).sum() / (2 * real_G.sum().clamp_min(1))

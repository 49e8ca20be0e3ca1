"""A student's answers against a teacher's, which are centred and sharpened (DINO, Caron et al. 2021, equations 1 to 4).

Shape letters: N answers, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.parallel import total


class Centre(nn.Module):
    """A moving average of the teacher's outputs, which is taken out of them so that none of them wins always (eq. 4).

    `centre_2K` holds it as a number and what that number lacks: with weights of 16 bits one alone would stand still, and a temperature
    of 0.04 makes much of little.
    """

    centre_2K: Tensor

    def __init__(self, outputs: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre_2K", torch.zeros(2, outputs))

    def forward(self, logits_NK: Tensor, tau: float) -> Tensor:
        """The teacher's shares, float32 [N, K]."""
        return ((logits_NK.float() - self.value()) / tau).softmax(-1)

    def value(self) -> Tensor:
        """[K], float32."""
        return self.centre_2K.float().sum(0)

    @torch.no_grad()
    def follow(self, logits_NK: Tensor, weight_N: Tensor) -> None:
        """Moves towards the mean over all ranks' answers that count; a batch that is not finite, or of nobody, leaves it."""
        known_NK = torch.where(weight_N[:, None] > 0, logits_NK.float(), 0.0)
        sums = total(torch.cat([(known_NK * weight_N[:, None]).sum(0), weight_N.sum()[None].float()]))
        mean_K = sums[:-1] / sums[-1]
        if not bool(torch.isfinite(mean_K).all()):
            return
        moved_K = self.momentum * self.value() + (1 - self.momentum) * mean_K
        self.centre_2K[0] = moved_K
        self.centre_2K[1] = moved_K - self.centre_2K[0].float()


def told(share_NK: Tensor, logits_NK: Tensor, tau: float) -> Tensor:
    """-sum_k share log softmax(logits / tau), [N]: the student's cross-entropy with the teacher's shares."""
    return -(share_NK * (logits_NK.float() / tau).log_softmax(-1)).sum(-1)

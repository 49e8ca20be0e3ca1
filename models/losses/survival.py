"""Survival in discrete time: hazards of intervals, their likelihood, and the risk that is reported.

Zadeh and Schmid, IEEE TPAMI 2020, in the form of MCAT and PORPOISE (Chen et al. 2021, 2022). Shape letters: B samples, K intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parallel import global_mean


def interval_of(time_B: Tensor, edges: Sequence[float]) -> Tensor:
    """The interval 0 .. K - 1 of each time; an edge belongs to the later one. What lies outside stands in the first or last."""
    return torch.bucketize(time_B.contiguous(), time_B.new_tensor(list(edges)), right=True)


def intervals_nll(
    logits_BK: Tensor, target_B2: Tensor, weight_B: Tensor, edges: Sequence[float], alpha: float = 0.0
) -> Tensor:
    """Negative log likelihood of time and event, mean over the samples of the global batch whose both are known.

    The hazard of interval k is sigmoid(logit k), surviving it S_k = product of (1 - hazard) up to it. An event in interval y has the
    likelihood S_(y-1) hazard_y; a sample censored there has survived it, S_y.

    Args:
        target_B2: time, and 1 for an event or 0 for a censored case; NaN in either leaves the sample out.
        edges: K - 1 inner edges, rising.
        alpha: takes so much weight from the censored: (1 - alpha) of all terms, alpha of those of events again.
    """
    x_BK = logits_BK.float()
    known_B = ~target_B2.isnan().any(1)
    time_B, event_B = target_B2.float().nan_to_num().unbind(1)
    y_B1 = interval_of(time_B, edges)[:, None]
    # Logarithms directly from the logits: no product of probabilities that could round to 0 and need a clamp.
    past_BK = F.logsigmoid(-x_BK).cumsum(1)
    through_B = past_BK.gather(1, y_B1)[:, 0]
    before_B = through_B - F.logsigmoid(-x_BK).gather(1, y_B1)[:, 0]
    seen_B = -event_B * (before_B + F.logsigmoid(x_BK).gather(1, y_B1)[:, 0])
    censored_B = -(1 - event_B) * through_B
    weight_B = weight_B.float() * known_B
    return global_mean((((1 - alpha) * censored_B + seen_B) * weight_B).sum(), weight_B.sum())


def intervals_risk(logits_BK: Tensor) -> Tensor:
    """-sum of S_k [B], between -K and 0: higher dies earlier."""
    return -F.logsigmoid(-logits_BK.float()).cumsum(1).exp().sum(1)

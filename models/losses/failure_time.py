"""Accelerated failure time: the likelihood of time itself under right censoring, and the risk that is reported.

Kalbfleisch and Prentice, The Statistical Analysis of Failure Time Data, 2002, sections 2.2 and 3.7: the logarithm of time is
mu + sigma W, with W of the extreme value distribution (time is Weibull) or the logistic one (log-logistic). Both mu and log sigma are
outputs of the head, so that samples differ in how sure their time is. Shape letters: B samples.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parallel import global_mean

WIDEST = 3.0
"""Log sigma stays within this of 0, smoothly: a sigma near 0 would make the likelihood of one event infinite."""
FARTHEST = 50.0
"""Largest W: beyond it exp(W) of a Weibull leaves float32; a sample so far off still has the loss of that W, and no gradient."""


def location_scale(logits_B2: Tensor) -> tuple[Tensor, Tensor]:
    """(mu_B, log_sigma_B), float32."""
    mu_B, raw_B = logits_B2.float().unbind(1)
    return mu_B, WIDEST * torch.tanh(raw_B / WIDEST)


def failure_time_nll(
    logits_B2: Tensor, target_B2: Tensor, weight_B: Tensor, distribution: Literal["weibull", "log_logistic"],
    log_time: tuple[float, float] = (0.0, 1.0),
) -> Tensor:  # fmt: skip
    """Negative log likelihood of time and event, mean over the samples of the global batch whose both are known.

    An event has the density of its logarithm of time, a censored sample the probability to be later.

    Args:
        target_B2: time above 0, and 1 for an event or 0 for a censored case; NaN in either leaves the sample out.
        log_time: what log times are lessened by, and divided by.
    """
    mu_B, log_sigma_B = location_scale(logits_B2)
    known_B = ~target_B2.isnan().any(1)
    # A time in place of what is unknown: its terms weigh 0, and 0 times infinity would be NaN.
    time_B, event_B = torch.where(known_B[:, None], target_B2.float(), 1.0).unbind(1)
    z_B = (time_B.log() - log_time[0]) / log_time[1]
    w_B = ((z_B - mu_B) * (-log_sigma_B).exp()).clamp(max=FARTHEST)
    if distribution == "weibull":
        later_B, density_B = -w_B.exp(), w_B - w_B.exp() - log_sigma_B
    else:
        later_B, density_B = -F.softplus(w_B), w_B - 2 * F.softplus(w_B) - log_sigma_B
    each_B = -torch.where(event_B > 0, density_B, later_B)
    weight_B = weight_B.float() * known_B
    return global_mean((each_B * weight_B).sum(), weight_B.sum())


def failure_time_risk(logits_B2: Tensor, distribution: Literal["weibull", "log_logistic"]) -> Tensor:
    """Minus the logarithm of the median time [B], standardised: higher dies earlier."""
    mu_B, log_sigma_B = location_scale(logits_B2)
    return -mu_B if distribution == "log_logistic" else -(mu_B + log_sigma_B.exp() * math.log(math.log(2)))

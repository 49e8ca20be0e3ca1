"""Losses of the instances that a bag's attention picks out (Lu et al. 2021, CLAM, "Instance-level clustering").

Shape letters: B bags, N instances, k picked instances.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = math.log(1000.0)
"""Scores so far apart count as hard: their smooth maximum is the maximum."""


def picked(score_BN: Tensor, mask_BN: Tensor, count_B: Tensor, k: int, highest: bool) -> tuple[Tensor, Tensor]:
    """The `count_B` real instances of highest (or lowest) score of each bag: their places [B, k], and which of the k places count."""
    k = min(k, score_BN.shape[1])
    # Which instances are picked is no function to differentiate: the choice is detached, the scores picked are not.
    place_Bk = (
        score_BN.detach()
        .masked_fill(~mask_BN, -torch.inf if highest else torch.inf)
        .topk(k, 1, largest=highest)
        .indices
    )
    return place_Bk, torch.arange(k, device=place_Bk.device) < count_B[:, None]


def two_way(score_Bk2: Tensor, positive: bool, kind: Literal["ce", "svm"]) -> Tensor:
    """Loss of each row of two scores [..., 2] -> [...], float32, when the second (or the first) is right.

    ce: cross-entropy. svm: the smooth top-1 margin loss of Berrada et al. 2018 (margin 1, temperature 1),
    log sum_c exp(s_c + [c wrong] - s_right), with the maximum in place of the smooth one where the scores lie ln 1000 apart.
    """
    s = score_Bk2.float()
    right, wrong = (s[..., 1], s[..., 0]) if positive else (s[..., 0], s[..., 1])
    # -log softmax of two scores is softplus of their difference, which neither overflows nor cancels.
    if kind == "ce":
        return F.softplus(wrong - right)
    gap = wrong + 1 - right
    return torch.where((wrong - right).abs() >= FAR, gap.clamp_min(0), F.softplus(gap))

"""Cross-entropy and accuracy over the global batch (see models/parallel.py). Shape letters: B samples of this rank, K classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from models.parallel import global_mean


def cross_entropy(logits_BK: Tensor, label_B: Tensor, weight_B: Tensor) -> Tensor:
    """Mean cross-entropy over the samples that count; a negative label does not."""
    weight_B = weight_B.float() * (label_B >= 0)
    each_B = F.cross_entropy(logits_BK.float(), label_B.clamp_min(0), reduction="none")
    return global_mean((each_B * weight_B).sum(), weight_B.sum())


def accuracy(logits_BK: Tensor, label_B: Tensor, weight_B: Tensor) -> Tensor:
    """Share of samples that count whose largest logit is their label's; without gradient."""
    weight_B = weight_B.float() * (label_B >= 0)
    right_B = (logits_BK.detach().argmax(-1) == label_B).float()
    return global_mean((right_B * weight_B).sum(), weight_B.sum())

"""Reconstruction of what was masked, over the global batch (see models/parallel.py).

Shape letters: B samples of this rank, L tokens, F feature width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.parallel import global_mean


def masked_l1(
    pred_BLF: Tensor,
    target_BLF: Tensor,
    masked_BL: Tensor,
    weight_B: Tensor,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """L1 reconstruction over masked positions (GiMP eq. 3), averaged over the samples that count and have any masked.

    "sum" is the equation to the letter, summed over a sample's masked positions and features; "mean" divides each
    sample's sum by its number of terms, so that bags of any length weigh the same.
    """
    # float32 before the difference: a bag's sum over 15,000 x 1,024 terms loses its last digits in bf16.
    gap_BL = (pred_BLF.float() - target_BLF.float()).abs().sum(-1)
    sum_B = (gap_BL * masked_BL).sum(1)
    terms_B = masked_BL.sum(1) * pred_BLF.shape[-1]
    # A slide of one patch may have nothing masked: it is no sample with a perfect score.
    weight_B = weight_B.float() * (terms_B > 0)
    value_B = sum_B / terms_B.clamp_min(1) if reduction == "mean" else sum_B
    # The divisor is that of all ranks, not of this one: a mean of the ranks' means would weigh a rank with few samples more.
    return global_mean((value_B * weight_B).sum(), weight_B.sum())

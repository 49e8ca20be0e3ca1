"""Local tokens of two sides aligned by cross-attention (MGCA, Wang et al., NeurIPS 2022, section 3.2).

Shape letters: B samples, L tokens of the side that looks, S of the side that is looked at, C width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parallel import global_mean

LEAST = torch.finfo(torch.float32).min


def align(
    a_BLC: Tensor,
    real_BL: Tensor,
    share_BL: Tensor,
    b_BSC: Tensor,
    real_BS: Tensor,
    weight_B: Tensor,
    tau: float = 0.1,
    normalise: bool = True,
    everywhere: bool = False,
) -> Tensor:
    """Each token of a finds among all of its sample's tokens what it itself found on the other side, and the other way round.

    With O = what a's tokens find in b, by attention over cosines / tau, at length 1, and S = a O^T / tau: half the cross-entropies of rows
    and columns of S with their own places, weighted by `share_BL`; the mean over samples of all ranks.

    Args:
        normalise: False leaves O at the length it has.
        everywhere: places that are not real are wrong answers too, though nothing is asked of them (as published).
    """
    a, b = (F.normalize(x.float(), dim=-1) for x in (a_BLC, b_BSC))
    look_BLS = (a @ b.mT / tau).masked_fill(~real_BS[:, None], LEAST).softmax(-1)
    found_BLC = look_BLS @ b
    found_BLC = F.normalize(found_BLC, dim=-1) if normalise else found_BLC
    score_BLL = a @ found_BLC.mT / tau
    if not everywhere:
        score_BLL = score_BLL.masked_fill(~(real_BL[:, None] & real_BL[:, :, None]), LEAST)
    both_BL = sum(-x.log_softmax(-1).diagonal(dim1=1, dim2=2) for x in (score_BLL, score_BLL.mT))
    assert isinstance(both_BL, Tensor)
    value_B = (torch.where(real_BL, both_BL, 0.0) * share_BL).sum(1) / 2
    return global_mean((value_B * weight_B).sum(), weight_B.sum())


@torch.no_grad()
def shares(class_BC: Tensor, token_BLC: Tensor, real_BL: Tensor) -> Tensor:
    """How much each token counts, [B, L], summing to 1: the class token's softmax over its products with them, over sqrt(C)."""
    score_BL = torch.einsum("bc,blc->bl", class_BC.float(), token_BLC.float()) * class_BC.shape[1] ** -0.5
    return score_BL.masked_fill(~real_BL, LEAST).softmax(1) * real_BL


@torch.no_grad()
def clipped(share_BL: Tensor, low: float = 0.1, high: float = 0.9) -> Tensor:
    """A row's numbers above 0 cut at their own quantiles (linear between two numbers) and scaled to sum 1; zeros stay, as does a row of
    zeros alone."""
    share_BL = share_BL.float()
    known_BL = share_BL > 0
    found_BL = share_BL.masked_fill(~known_BL, torch.nan)
    least_B1, most_B1 = (found_BL.nanquantile(q, dim=1, keepdim=True) for q in (low, high))
    cut_BL = torch.where(known_BL, share_BL.clamp(least_B1, most_B1), 0.0)
    return cut_BL / cut_BL.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)

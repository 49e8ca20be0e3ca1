"""Triplets over the global batch: equal in value and gradient for any number of ranks (see models/parallel.py).

Shape letters: B samples of this rank, G samples of all ranks, C width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from models.parallel import gather

Mining = Literal["all", "hard", "semi_hard", "random_one"]


def squared_distances(x_GC: Tensor) -> Tensor:
    """|x_i - x_j|^2, [G, G], float32."""
    x = x_GC.float()
    # Differences, not the expansion with a dot product, which cancels where points lie close.
    return (x[:, None] - x[None]).square().sum(-1)


def triplets(x_BC: Tensor, label_B: Tensor, weight_B: Tensor, draw_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What mining needs, of all ranks: squared distances [G, G], same-label and other-label pairs [G, G], draws [G].

    Samples without a label or of no weight are in no pair.
    """
    # Gathered with gradient: an anchor here pulls on its positive there, and every rank gets its own rows' share back.
    distance_GG = squared_distances(gather(x_BC))
    label_G, counts_G = gather(label_B), gather((label_B >= 0) & (weight_B > 0))
    both_GG = counts_G[:, None] & counts_G[None]
    same_GG = label_G[:, None] == label_G[None]
    itself_GG = torch.eye(len(label_G), dtype=torch.bool, device=label_G.device)
    return distance_GG, both_GG & same_GG & ~itself_GG, both_GG & ~same_GG, gather(draw_B)


def triplet(
    x_BC: Tensor,
    label_B: Tensor,
    weight_B: Tensor,
    draw_B: Tensor,
    margin: float = 0.8,
    mining: Mining = "all",
    average: Literal["valid", "active"] = "valid",
) -> tuple[Tensor, Tensor, Tensor]:
    """max(|a - p|^2 + margin - |a - n|^2, 0) (GiMP eq. 4), over triplets of anchor, same label, other label.

    Args:
        draw_B: a uniform number a sample, from which `random_one` chooses (the same triplets on every rank).
        mining: every valid triplet; each anchor's farthest positive and nearest negative; those with the negative
            farther than the positive but inside the margin; or one random positive and negative an anchor.
        average: over the mined triplets, or over those of them above zero.

    Returns:
        loss, share of mined triplets above zero, number of mined triplets (the last two without gradient). A batch
        without a triplet (one class only) gives zeros.
    """
    d, same, other, draw_G = triplets(x_BC, label_B, weight_B, draw_B)
    if mining in ("hard", "random_one"):
        pick = _hardest if mining == "hard" else _random
        value, mined = pick(d, same, other, margin, draw_G)
    else:
        # G^3 values: 16 MB at a global batch of 160, which is above what slides allow.
        gap_APN = d[:, :, None] - d[:, None, :]
        mined = same[:, :, None] & other[:, None, :]
        if mining == "semi_hard":
            mined = mined & (gap_APN < 0) & (gap_APN > -margin)
        value = (gap_APN + margin).clamp_min(0)
    # `active` averages over triplets that still pull, so that the gradient does not fade as most are satisfied.
    active = mined & (value > 0)
    count, live = mined.sum(), active.sum()
    over = count if average == "valid" else live
    return (value * mined).sum() / over.clamp_min(1), (live / count.clamp_min(1)).detach(), count


def _hardest(d: Tensor, same: Tensor, other: Tensor, margin: float, draw_G: Tensor) -> tuple[Tensor, Tensor]:
    # An anchor without a positive or a negative has an infinity here; it is replaced below before it meets another (inf - inf).
    far_A = d.masked_fill(~same, -torch.inf).amax(1)
    near_A = d.masked_fill(~other, torch.inf).amin(1)
    mined_A = same.any(1) & other.any(1)
    gap_A = torch.where(mined_A, far_A, 0.0) - torch.where(mined_A, near_A, 0.0)
    return (gap_A + margin).clamp_min(0), mined_A


def _random(d: Tensor, same: Tensor, other: Tensor, margin: float, draw_G: Tensor) -> tuple[Tensor, Tensor]:
    # The partner whose draw comes next after the anchor's on the circle: uniform, as the draws are, and the same on
    # all ranks.
    turn_GG = (draw_G[None] - draw_G[:, None]) % 1.0
    positive_A = turn_GG.masked_fill(~same, 2.0).argmin(1)
    negative_A = turn_GG.masked_fill(~other, 2.0).argmin(1)
    gap_A = d.gather(1, positive_A[:, None]) - d.gather(1, negative_A[:, None])
    return (gap_A[:, 0] + margin).clamp_min(0), same.any(1) & other.any(1)

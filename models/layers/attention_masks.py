"""Which patches are hidden, by how much a class token looks at them (AttMask, Kakogeorgiou et al. 2022, section 3.3).

Shape letters: R images, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def places_by(score_RN: Tensor) -> Tensor:
    """The place of each patch where those of an image are sorted, the largest first: 0 .. N - 1, [R, N]."""
    return score_RN.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def hidden_first(score_RN: Tensor, count_R: Tensor) -> Tensor:
    """The `count` patches of an image with the largest scores, bool [R, N]."""
    return places_by(score_RN) < count_R[:, None]


def shown_again(score_RN: Tensor, noise_RN: Tensor, top: int, count_R: Tensor) -> Tensor:
    """Of the `top` patches with the largest scores those with the least noise, `count` of them or all: the hints, bool [R, N]."""
    top_RN = places_by(score_RN) < top
    return top_RN & (places_by(torch.where(top_RN, -noise_RN, -torch.inf)) < count_R[:, None])

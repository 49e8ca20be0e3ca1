"""Views of one study weighed against each other, place by place (REFERS, Zhou et al., Nat. Mach. Intell. 2022).

Shape letters: B studies, V views, P places of an image, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ViewFusion(nn.Module):
    """Each view's vector of a place times w_v = sigmoid(Linear_v(the vectors of all views at that place)).

    A view that is not there counts as zeros, and what is there is scaled by V over the views there are: its sum keeps its size.
    """

    def __init__(self, width: int, views: int):
        super().__init__()
        self.weigh = nn.Linear(views * width, views)

    def forward(self, x_BVPD: Tensor, there_BV: Tensor) -> Tensor:
        """[B, V, P, D] -> [B, V * P, D], zeros for views that are not there."""
        views = x_BVPD.shape[1]
        share_BV = there_BV * (views / there_BV.sum(1, keepdim=True).clamp_min(1))
        all_BPC = (x_BVPD * share_BV[..., None, None].to(x_BVPD.dtype)).transpose(1, 2).flatten(2)
        weight_BVP = torch.sigmoid(self.weigh(all_BPC)).transpose(1, 2) * there_BV[..., None].to(x_BVPD.dtype)
        return (x_BVPD * weight_BVP[..., None]).flatten(1, 2)

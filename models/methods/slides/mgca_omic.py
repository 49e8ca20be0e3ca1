"""MGCA on slides and genes, as GiMP's Table 1 compares it: Multi-Granularity Cross-modal Alignment (Wang et al., NeurIPS 2022) with GiMP's
encoders. Wholes are compared, segments of the slide and groups of genes aligned by cross-attention, and both sides foretell each other's
prototype. docs/methods/mgca_omic.md says what was kept and what had to change.

Shape letters: B samples, S segments, N gene groups, C width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, Schema
from models.losses.contrastive import Pairs
from models.losses.prototypes import Prototypes, swapped
from models.losses.token_alignment import align, shares
from models.methods.slides._omic import OmicMethod, OmicOptions, Projection, Sides
from models.registry import register


class MgcaOmicOptions(OmicOptions):
    local_weight: float = Bounded(0.7, ge=0)
    """Weight of the alignment of local tokens; that of the comparison of wholes is 1. 0 leaves it out."""
    local_tau: float = Bounded(0.1, gt=0)
    """Temperature of the alignment."""
    token_shares: Literal["class", "equal"] = "class"
    """Local tokens count by how near the class token they are, or all alike."""
    prototype_weight: float = Bounded(0.5, ge=0)
    """Weight of the prototypes; 0 leaves them out."""
    prototypes: int = Bounded(64, ge=2)
    """How many; the original's 500 stay empty with a few hundred patients."""
    prototype_tau: float = Bounded(0.2, gt=0)
    """Temperature of what foretells a prototype."""


@register("mgca_omic")
class MgcaOmic(OmicMethod):
    """And `segment_proj`, `group_proj` of local tokens, `prototypes`."""

    Options = MgcaOmicOptions
    paper = "Wang et al., Multi-Granularity Cross-Modal Alignment, NeurIPS 2022; on slides and genes: Jin et al., GiMP, MICCAI 2023"
    options: MgcaOmicOptions

    def __init__(self, options: MgcaOmicOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        if o.local_weight:
            self.segment_proj, self.group_proj = (Projection(o.dim, o.project) for _ in range(2))
        if o.prototype_weight:
            self.prototypes = Prototypes(o.project, o.prototypes)
        self.enter("")

    def chance(self, batch_size: int) -> dict[str, float]:
        """And of prototypes ln of their number."""
        known = super().chance(batch_size)
        if self.stage != "gene" and self.options.prototype_weight:
            known["prototype"] = float(np.log(self.options.prototypes))
        return known

    def terms(self, s: Sides, batch: Batch, pairs: Pairs) -> tuple[dict[str, tuple[float, Tensor]], dict[str, Tensor]]:
        o, found = self.options, {}
        if o.local_weight:
            found["local"] = o.local_weight, self._local(s)
        if o.prototype_weight:
            a_BK, b_BK = (
                self.prototypes(p(x)) for p, x in ((self.slide_proj, s.slide_BC), (self.gene_proj, s.gene_BC))
            )
            found["prototype"] = o.prototype_weight, swapped(a_BK, b_BK, s.weight_B, o.prototype_tau)
        return found, {}

    def _local(self, s: Sides) -> Tensor:
        """Both ways: groups look at segments, segments at groups."""
        segment_BSC, group_BNC = self.segment_proj(s.segment_BSC), self.group_proj(s.group_BNC)
        all_BN = torch.ones(group_BNC.shape[:2], dtype=torch.bool, device=group_BNC.device)
        segments = segment_BSC, s.real_BS, self._shares(s.slide_BC, s.segment_BSC, s.real_BS)
        groups = group_BNC, all_BN, self._shares(s.gene_BC, s.group_BNC, all_BN)
        return sum(
            (
                align(*a, *b[:2], s.weight_B, self.options.local_tau)
                for a, b in ((groups, segments), (segments, groups))
            ),
            start=segment_BSC.new_zeros((), dtype=torch.float32),
        )

    def _shares(self, class_BC: Tensor, token_BLC: Tensor, real_BL: Tensor) -> Tensor:
        if self.options.token_shares == "class":
            return shares(class_BC, token_BLC, real_BL)
        return real_BL / real_BL.sum(1, keepdim=True).clamp_min(1)

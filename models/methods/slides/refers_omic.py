"""REFERS on slides and genes, as GiMP's Table 1 compares it: Zhou et al., Nature Machine Intelligence 2022, with GiMP's encoders. Wholes
are compared, and the genes are written from the slide, fragment by fragment, in place of a report. docs/methods/refers_omic.md says what
was kept and what had to change.

Shape letters: B samples, T fragments, F genes in a fragment, S segments, C width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, Schema
from models.decoders.fragments import FragmentDecoder, fragment_bins, fragment_l1
from models.losses.contrastive import Pairs
from models.methods.slides._omic import OmicMethod, OmicOptions, Sides
from models.registry import register


class RefersOmicOptions(OmicOptions):
    generation: Literal["regress", "bins"] = "regress"
    """Genes are written as z-scores (L1), or as one of `bins` equal shares of a normal distribution (cross-entropy)."""
    bins: int = Bounded(8, ge=2)
    """`generation=bins`: how many."""
    decoder_depth: int = Bounded(2, ge=1)
    """Layers of what writes the genes."""
    generation_weight: float = Bounded(1.0, gt=0)
    """Weight of the written genes; that of the comparison is 1."""


@register("refers_omic")
class RefersOmic(OmicMethod):
    """And `decoder`, which writes the genes from CLS_img and the segments."""

    Options = RefersOmicOptions
    paper = (
        "Zhou et al., Generalized radiograph representation learning via cross-supervision (REFERS), Nat. Mach. Intell. 2022; on slides "
        "and genes: Jin et al., GiMP, MICCAI 2023"
    )
    options: RefersOmicOptions

    def __init__(self, options: RefersOmicOptions, schema: Schema):
        super().__init__(options, schema)
        o, g = options, self.genes
        numbers = o.bins if o.generation == "bins" else 1
        self.decoder = FragmentDecoder(
            g.groups * g.per_group, g.fragment, o.dim, o.heads, o.decoder_depth, o.dropout, numbers
        )
        self.enter("")

    def chance(self, batch_size: int) -> dict[str, float]:
        """Of bins ln of their number; of z-scores `mean_genome` is logged beside the loss."""
        known = super().chance(batch_size)
        if self.stage != "gene" and self.options.generation == "bins":
            known["generation"] = float(np.log(self.options.bins))
        return known

    def terms(self, s: Sides, batch: Batch, pairs: Pairs) -> tuple[dict[str, tuple[float, Tensor]], dict[str, Tensor]]:
        o, z_BG = self.options, self.expression(batch)
        tokens_BLC = torch.cat([s.slide_BC[:, None], s.segment_BSC], 1)
        real_BL = torch.cat([torch.ones_like(s.real_BS[:, :1]), s.real_BS], 1)
        said_BTFK, z_BTF = self.decoder(tokens_BLC, real_BL), self.genes.fragments(z_BG)
        asked_BTF = (self.genes.fragments(torch.ones_like(z_BG[:1])) > 0).expand_as(z_BTF)
        if o.generation == "bins":
            return {"generation": (o.generation_weight, fragment_bins(said_BTFK, z_BTF, asked_BTF, s.weight_B))}, {}
        loss = fragment_l1(said_BTFK[..., 0], z_BTF, asked_BTF, s.weight_B)
        mean = fragment_l1(torch.zeros_like(z_BTF), z_BTF, asked_BTF, s.weight_B)
        return {"generation": (o.generation_weight, loss)}, {"mean_genome": mean}

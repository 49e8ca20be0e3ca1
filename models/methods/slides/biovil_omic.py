"""BioViL on slides and genes, as GiMP's Table 1 compares it: Boecking et al., ECCV 2022, with GiMP's encoders. Hidden fragments of genes
are predicted, first alone and then beside the comparison of wholes and of groups with segments. docs/methods/biovil_omic.md says what
was kept and what had to change; the official training code was never released.

Shape letters: B samples, T fragments, F genes in a fragment, S segments, N gene groups, C width.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Output, Schema, Stage
from models.decoders.fragments import FragmentDecoder, fragment_l1
from models.layers.co_attention import keys
from models.losses.contrastive import Pairs, compared, symmetric
from models.losses.local_contrastive import word_similarities
from models.methods.slides._omic import OmicMethod, OmicOptions, Sides
from models.registry import register


class BiovilOmicOptions(OmicOptions):
    gene_stage: bool = True
    """First a stage of hidden fragments alone, without labels, in place of the original's text pre-training. (With
    `genes.start=supervised_frozen` the stage by labels is in its place, and nothing is hidden.)"""
    local_weight: float = Bounded(0.5, ge=0)
    """Weight of the comparison of groups of genes with segments of slides; 0 leaves it out."""
    attention_scale: float = Bounded(4.0, gt=0)
    """Factor of the products before the softmax over segments."""
    word_scale: float = Bounded(5.0, gt=0)
    """Factor of a group's cosine with what it finds."""
    logit_scale: float = Bounded(10.0, gt=0)
    """Factor of similarities in the cross-entropies of the local comparison."""
    masked_weight: float = Bounded(0.1, gt=0)
    """Weight of hidden fragments beside the comparisons."""
    mask_ratio: float = Bounded(0.15, gt=0, lt=1)
    """Share of fragments that are hidden, exactly, one at least."""


@register("biovil_omic")
class BiovilOmic(OmicMethod):
    """And `segment_proj`, `group_proj` of local tokens, `decoder` of hidden fragments."""

    Options = BiovilOmicOptions
    paper = "Boecking et al., Making the Most of Text Semantics, ECCV 2022; on slides and genes: Jin et al., GiMP, MICCAI 2023"
    outline: ClassVar = {"gene": "rna", "pretrain": "patches, rna"}
    hides = True
    options: BiovilOmicOptions

    def __init__(self, options: BiovilOmicOptions, schema: Schema):
        super().__init__(options, schema)
        o, g = options, self.genes
        if o.local_weight:
            self.segment_proj, self.group_proj = (nn.Linear(o.dim, o.project) for _ in range(2))
        if self.hides:
            self.decoder = FragmentDecoder(g.groups * g.per_group, g.fragment, o.dim, o.heads, 1, o.dropout)
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        alone = (Stage("gene", ("rna",), epochs=100),) if self.options.gene_stage and self.hides else ()
        return (*alone, *super().stages())

    def _trained(self, part: str, stage: str) -> bool:
        if stage == "gene" and self.hides:
            return part in ("genes", "decoder")
        return super()._trained(part, stage)

    def chance(self, batch_size: int) -> dict[str, float]:
        """Of hidden fragments `mean_genome` is logged beside the loss."""
        return {} if self.stage == "gene" and self.hides else super().chance(batch_size)

    def _hidden(self, rng: np.random.Generator) -> np.ndarray:
        T = self.genes.groups * self.genes.per_group
        return rng.permutation(T) < max(1, round(T * self.options.mask_ratio))

    def forward_gene(self, batch: Batch) -> Output:
        if not self.hides:
            return super().forward_gene(batch)
        loss, mean, cls_BC = self._masked(batch, batch.weight_B)
        return Output({"masked": loss}, loss, {"mean_genome": mean}, {"gene": cls_BC.detach()})

    def _masked(self, batch: Batch, weight_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """L1 of hidden fragments, what the mean genome would cost, and CLS_ge of the genes with holes."""
        z_BG, hidden_BT = self.expression(batch), batch["hidden"]
        cls_BC, group_BNC = self.genes(z_BG, hidden_BT)
        tokens_BLC = torch.cat([cls_BC[:, None], group_BNC], 1)
        real_BL = torch.ones(tokens_BLC.shape[:2], dtype=torch.bool, device=tokens_BLC.device)
        z_BTF, said_BTF = self.genes.fragments(z_BG), self.decoder(tokens_BLC, real_BL)[..., 0]
        there_TF = self.genes.fragments(torch.ones_like(z_BG[:1]))[0] > 0
        asked_BTF, weight_B = hidden_BT[..., None] & there_TF, weight_B * batch.present["rna"]
        loss, mean = (fragment_l1(x, z_BTF, asked_BTF, weight_B) for x in (said_BTF, torch.zeros_like(z_BTF)))
        return loss, mean, cls_BC

    def terms(self, s: Sides, batch: Batch, pairs: Pairs) -> tuple[dict[str, tuple[float, Tensor]], dict[str, Tensor]]:
        o, found, told = self.options, {}, {}
        if o.local_weight:
            found["local"] = o.local_weight, symmetric(self._local(s, batch))
        if self.hides:
            loss, told["mean_genome"], _ = self._masked(batch, batch.weight_B)
            found["masked"] = o.masked_weight, loss
        return found, told

    def _local(self, s: Sides, batch: Batch) -> Pairs:
        """Groups of genes as words, segments as cells; both at length 1."""
        o = self.options
        cells, words = (
            nn.functional.normalize(p(x).float(), dim=-1)
            for p, x in ((self.segment_proj, s.segment_BSC), (self.group_proj, s.group_BNC))
        )
        count_B = torch.full((len(words),), words.shape[1], device=words.device)
        fit_GG = word_similarities(
            cells, words, count_B, o.attention_scale, o.word_scale, "mean", False, real_BR=keys(s.real_BS)
        )
        return compared(o.logit_scale * fit_GG, s.weight_B, batch["patient"], o.same_patient)

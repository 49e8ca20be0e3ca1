"""PORPOISE's multimodal fusion (MMF): Pan-cancer integrative histology-genomic analysis via multimodal deep learning (Chen et al., Cancer
Cell 2022).

The slide is pooled by gated attention, the genome encoded by a small network, and both fused by the product of all their numbers, each
side gated by both. It learns from a task's labels alone: there is nothing to pre-train. docs/methods/porpoise.md says where the official
code differs from itself and what `conventions` chooses.

Shape letters: B samples, N instances, F patch feature width, D embedded width, V width of a side.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Head, Schema, TargetSpec
from models.encoders.snn import SNN
from models.heads.linear import LinearHead
from models.layers.bag_attention import BagAttention, pooled_rows, weights
from models.layers.fusion import JoinFusion, KroneckerFusion, Side
from models.methods.slides._fused import FusedMethod, FusedOptions
from models.registry import register


class PorpoiseOptions(FusedOptions):
    unsaid: ClassVar = {"fusion_dropout": 0.0}

    fusion: Literal["bilinear", "concat"] = "bilinear"
    """The product of both sides, or both joined and two layers."""
    gate_path: bool = True
    """The slide's side of the product is gated by both."""
    gate_gene: bool = True
    """The genes' side of the product is gated by both."""
    skip: bool = True
    """Both sides are joined to what the product became."""
    reduce: int = Bounded(8, ge=1)
    """Each side has 256 / `reduce` numbers in the product."""
    input_dropout: float = Bounded(0.1, ge=0, lt=1)
    """Of the patch features, by number."""
    fusion_dropout: float = Bounded(0.0, ge=0, lt=1)
    """`fusion=bilinear`: behind each of the last two layers. PORPOISE's own model has none, its copy that MCAT uses .25."""
    dropout: float = Bounded(0.25, ge=0, lt=1)
    """Everywhere else."""


EMBED, HIDDEN, VECTOR = 512, 256, 256
"""Widths of an embedded patch, of the attention network and of a side, as published."""


@register("porpoise")
class Porpoise(FusedMethod):
    """The pooled vector is what the fusion gives, 256 wide; tokens are the embedded patches."""

    Options = PorpoiseOptions
    paper = (
        "Chen et al., Pan-cancer integrative histology-genomic analysis via multimodal deep learning, Cancer Cell 2022"
    )
    options: PorpoiseOptions

    def __init__(self, options: PorpoiseOptions, schema: Schema):
        super().__init__(options, schema)
        o, p = options, options.dropout
        self.embed = nn.Sequential(
            nn.Dropout(o.input_dropout), nn.Linear(self.features, EMBED), nn.ReLU(), nn.Dropout(p)
        )
        self.attention = BagAttention(EMBED, HIDDEN, 1, True, p)
        self.path = nn.Sequential(nn.Linear(EMBED, VECTOR), nn.ReLU(), nn.Dropout(p))
        self.gene = SNN(len(self.gene_index_G), VECTOR, (VECTOR,), p, o.gene_act, start="torch")
        self.fusion: nn.Module = JoinFusion((VECTOR, VECTOR), VECTOR)
        if o.fusion == "bilinear":
            R = max(1, VECTOR // o.reduce)
            self.gated = (o.gate_path, o.gate_gene)
            sides = (Side(VECTOR, R, o.gate_path), Side(VECTOR, R, o.gate_gene))
            self.fusion = KroneckerFusion(
                *sides, VECTOR, "inputs" if o.skip else "none", dropout=p, encoder_dropout=o.fusion_dropout
            )

    def encode(self, batch: Batch) -> Encoded:
        """Tokens h [B, N, D], pooled the fused vector [B, V]; zero where slide or genes are missing."""
        bags = self.rows(batch)
        h = bags.of(self.embed(bags.rows_PD))
        path_BV = self.path(pooled_rows(h, self.attention(h.rows_PD))[:, 0])
        fused_BV, gates = self.answers(batch, *self.fusion(path_BV, self.gene(self.genes(batch))[0]))
        return Encoded.of_bags(h, fused_BV, diagnostics=gates)

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Shares of the patches in the slide's vector, before it meets the genes."""
        x_BNF, mask_BN = self.bags(batch)
        return {"attention": weights(self.attention(self.embed(x_BNF)), mask_BN)[..., 0]}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.attention,)

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """One linear layer, with PyTorch's first weights as in the official code."""
        return LinearHead(pooled, target.outputs, norm=False, std=None)

"""Pathomic Fusion: an integrated framework for fusing histopathology and genomic features (Chen et al., IEEE TMI 2020, arXiv 1912.08937).

A vector of the image and one of the genome, 32 wide each, are gated and fused by their Kronecker product. The original image part is a
network over small regions; here it is a slide's bag, pooled by gated attention. It learns from a task's labels alone: there is nothing to
pre-train. docs/methods/pathomic_fusion.md says where code and paper differ and what `conventions` chooses.

Shape letters: B samples, N instances, F patch feature width, D embedded width, V width of a side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Head, MethodError, Schema, TargetSpec
from models.encoders.snn import SNN
from models.heads.linear import LinearHead
from models.layers.bag_attention import BagAttention, pooled_rows, weights
from models.layers.fusion import KroneckerFusion, Side, normal_by_fan_in
from models.methods.slides._fused import FusedMethod, FusedOptions
from models.registry import register


class PathomicFusionOptions(FusedOptions):
    gate_image: bool = False
    """The image's side is gated by both (the code's grade setting: not; the paper's figures: it is)."""
    gate_gene: bool = True
    """The genes' side is gated by both."""
    reduce_image: int = Bounded(1, ge=1)
    """The image's side has `vector` / `reduce_image` numbers in the product; 1 without its gate."""
    reduce_gene: int = Bounded(2, ge=1)
    """The genes' side has `vector` / `reduce_gene` numbers in the product; 1 without its gate."""
    bilinear: bool = True
    """Gates are bilinear in both sides, or linear in both joined."""
    skip: bool = False
    """Both gated sides are joined to what the product became."""
    vector: int = Bounded(32, ge=1)
    """Width V of each side."""
    width: int = Bounded(64, ge=1)
    """Width of the fused vector."""
    embed: int = Bounded(512, ge=1)
    """Width that a patch is embedded to."""
    hidden: int = Bounded(256, ge=1)
    """Width of the attention network over patches."""
    dropout: float = Bounded(0.25, ge=0, lt=1)
    """Everywhere."""


@register("pathomic_fusion")
class PathomicFusion(FusedMethod):
    """The pooled vector is what the fusion gives; tokens are the embedded patches."""

    Options = PathomicFusionOptions
    paper = "Chen et al., Pathomic Fusion: An Integrated Framework for Fusing Histopathology and Genomic Features, IEEE TMI 2020"
    options: PathomicFusionOptions

    def __init__(self, options: PathomicFusionOptions, schema: Schema):
        if problems := list(_problems(options)):
            raise MethodError(problems)
        super().__init__(options, schema)
        o, p, V = options, options.dropout, options.vector
        self.embed = nn.Sequential(nn.Linear(self.features, o.embed), nn.ReLU(), nn.Dropout(p))
        self.attention = BagAttention(o.embed, o.hidden, 1, True, p)
        self.image = nn.Sequential(nn.Linear(o.embed, V), nn.ReLU())
        self.gene = SNN(len(self.gene_index_G), V, (64, 48, 32), p, o.gene_act)
        image = Side(V, V // o.reduce_image, o.gate_image)
        gene = Side(V, V // o.reduce_gene, o.gate_gene)
        skip: Literal["outputs", "none"] = "outputs" if o.skip else "none"
        self.fusion = KroneckerFusion(image, gene, o.width, skip, o.bilinear, False, p, p)
        self.gated = (o.gate_image, o.gate_gene)
        normal_by_fan_in(self.fusion)

    def encode(self, batch: Batch) -> Encoded:
        """Tokens h [B, N, D], pooled the fused vector; zero where slide or genes are missing."""
        bags = self.rows(batch)
        h = bags.of(self.embed(bags.rows_PD))
        image_BV = self.image(pooled_rows(h, self.attention(h.rows_PD))[:, 0])
        fused_BD, gates = self.answers(batch, *self.fusion(image_BV, self.gene(self.genes(batch))[0]))
        return Encoded.of_bags(h, fused_BD, diagnostics=gates)

    def fused(self, image_BV: Tensor, gene_BV: Tensor) -> Tensor:
        """The fused vector of an image's and a genome's."""
        return self.fusion(image_BV, gene_BV)[0]

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Shares of the patches in the slide's vector, before it meets the genes."""
        x_BNF, mask_BN = self.bags(batch)
        return {"attention": weights(self.attention(self.embed(x_BNF)), mask_BN)[..., 0]}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.attention,)

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """One linear layer, with PyTorch's first weights as in the official code."""
        return LinearHead(pooled, target.outputs, norm=False, std=None)


def _problems(o: PathomicFusionOptions) -> Iterable[str]:
    for side, gated, reduced in (("image", o.gate_image, o.reduce_image), ("gene", o.gate_gene, o.reduce_gene)):
        if not gated and reduced != 1:
            yield (
                f"method.reduce_{side}: a side without its gate keeps its width; set method.reduce_{side}=1 or method.gate_{side}=true"
            )
        elif reduced > o.vector:
            yield f"method.reduce_{side}: {reduced} leaves nothing of {o.vector} numbers (method.vector); give less"

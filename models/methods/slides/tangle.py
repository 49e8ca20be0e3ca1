"""TANGLE: Transcriptomics-guided Slide Representation Learning in Computational Pathology (Jaume et al., CVPR 2024).

The vector of a slide, pooled by attention over its patches, and the vector of its genes are pulled together by a contrastive loss, without
labels. Two variants learn otherwise: the slide's vector predicts the genes (TANGLE-Rec), or two views of a bag have the same vector
(Intra). docs/methods/tangle.md says where the official code differs and what `conventions` chooses.

Shape letters: B samples, N instances, F patch feature width, G genes, E width of the compared vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Output, Record, Sample, Schema, Stage
from models.encoders.bag_encoder import Activation, BagEncoder
from models.encoders.gene_mlp import GeneMLP
from models.layers.pooling import shared_out
from models.losses.contrastive import SamePatient, all_pairs, chance, directed, retrieval
from models.losses.spread import smooth_rank
from models.methods.slides._bag import one_by_one
from models.methods.slides._fused import BagGenes, GeneBagMethod, GeneBagOptions
from models.parallel import gather, global_mean
from models.pictures import alike, first, matrices
from models.registry import register
from models.transforms.patients import patient_number

MOST_HIDDEN = 2048
"""Width of the gene network where nobody gave one: that of the genes, but no more than this (recommended)."""
Select = Literal["val_recall", "smooth_rank", "last"]
Order = Literal["patient_unique", "shuffle"]
T = TypeVar("T")


class TangleGenes(BagGenes):
    """Of the genes: how they are given to their network."""

    at_most: ClassVar = True

    top: int | None = Bounded(5000, ge=1)
    """At most so many genes, those of highest deviation in the training split; null takes all."""


class TangleOptions(GeneBagOptions):
    genes: TangleGenes = TangleGenes()
    """The genes."""
    conventions: Literal["recommended", "published"] = "recommended"
    """What `order`, `same_patient`, `replace`, `masks`, `gene_hidden` and `select` mean where they are not given."""
    version: Literal["v1", "v2"] = "v1"
    """Slide encoder: two layers as wide as the features and one attention, or three layers and several attentions (pan-cancer)."""
    objective: Literal["contrast", "reconstruct", "intra"] = "contrast"
    """Slide against genes; the genes predicted from the slide (Rec); or two views of a bag (Intra, without genes)."""
    tau: float = Bounded(0.01, gt=0)
    """Temperature of the comparison, fixed."""
    symmetric: bool = True
    """The mean of slide to genes and genes to slide, or slide to genes alone."""
    same_patient: SamePatient | None = None
    """Slides of one patient in a batch, whose genes are the same: each other's positives (recommended), left out, or negatives
    (published)."""
    order: Order | None = None
    """Batches with at most one slide of a patient (recommended), or of any slides (published)."""
    tokens: int | None = Bounded(2048, ge=1)
    """Patches of a slide in pre-training, drawn anew at each visit; null: all."""
    replace: bool | None = None
    """Draw with replacement and always so many (published), or without, and all of a slide that has fewer (recommended)."""
    masks: Literal["intended", "official"] | None = None
    """`objective=intra`: the second view is the bag with places set to zero (recommended), or, as the official code has it, the bag times
    the number of those places, nothing hidden (published)."""
    mask_ratio: float = Bounded(0.5, gt=0, lt=1)
    """`objective=intra`: their share."""
    hidden: int | None = Bounded(None, ge=1)
    """`v1`: width of the attention network, null as wide as the features. `v2`: width of everything, null 512."""
    heads: int = Bounded(2, ge=2)
    """`v2`: attentions."""
    activation: Activation = "softmax"
    """How scores of patches become weights: softmax; sigmoid, averaged over the bag; or ReLU, summed."""
    gene_hidden: int | None = Bounded(None, ge=1)
    """Width of the gene network. Null: `v1` as many as genes (published), but at most 2,048 (recommended); `v2` as the slide's vector."""
    dropout: float = Bounded(0.1, ge=0, lt=1)
    """Behind each layer of patches."""
    attention_dropout: float = Bounded(0.25, ge=0, lt=1)
    """In the attention network."""
    gene_dropout: float = Bounded(0.2, ge=0, lt=1)
    """Behind each layer of the networks from and to genes."""
    select: Select | None = None
    """Weights that go on: those that find most genes of held-back slides, those of highest smooth rank of held-back vectors (published, of
    the training split there), or the last. Null: `val_recall` of a comparison, else `last`; published: `smooth_rank`, of Rec `last`."""

    def either(self, value: T | None, recommended: T, published: T) -> T:
        """What an option that was not given means."""
        return value if value is not None else published if self.conventions == "published" else recommended

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.select == "val_recall" and self.objective != "contrast":
            yield f"{where}.select: val_recall, but {where}.objective={self.objective} finds nothing; set {where}.select=last"


@register("tangle")
class Tangle(GeneBagMethod):
    """`slide`, and by the objective `genes` (compared), `decoder` (predicts genes), or neither."""

    Options = TangleOptions
    paper = "Jaume et al., Transcriptomics-guided Slide Representation Learning in Computational Pathology, CVPR 2024"
    pairs = "slide bag + RNA-seq"
    outline: ClassVar = {"pretrain": "patches, rna"}
    per_patch = ("patches", "keep")
    options: TangleOptions

    def __init__(self, options: TangleOptions, schema: Schema):
        super().__init__(options, schema)
        o, F, G = options, self.features, len(self.gene_index_G)
        H = o.hidden or (F if o.version == "v1" else 512)
        widths = (F, F, F) if o.version == "v1" else (F, H, H, H * o.heads)
        self.width = F if o.version == "v1" else H
        self.slide = BagEncoder(
            widths, H, o.heads if o.version == "v2" else 1, o.activation, o.dropout, o.attention_dropout
        )
        self.genes: GeneMLP | None = None
        self.decoder: GeneMLP | None = None
        if o.objective == "contrast":
            wide = G if o.conventions == "published" else min(G, MOST_HIDDEN)
            wide = o.gene_hidden or (wide if o.version == "v1" else H)
            self.genes = GeneMLP(G, self.width, wide, o.gene_dropout)
        elif o.objective == "reconstruct":
            self.decoder = GeneMLP(self.width, G, o.gene_hidden or self.width, o.gene_dropout)
        if self.genes is None:
            self.inputs = ("patches",)
        self.enter("")

    # --------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> tuple[Stage, ...]:
        o = self.options
        fields: tuple[str, ...] = ("patches",) if o.objective == "intra" else ("patches", "rna")
        order: Order = o.either(o.order, "patient_unique", "shuffle")
        metric = {"val_recall": "slide_to_genes", "smooth_rank": "smooth_rank"}.get(self._chooses_by())
        select: Any = None if metric is None else (metric, "max")
        return (Stage("pretrain", fields, order, compares=o.objective == "contrast", select=select, epochs=100),)

    def _chooses_by(self) -> Select:
        o = self.options
        recommended: Select = "val_recall" if o.objective == "contrast" else "last"
        return o.either(o.select, recommended, "last" if o.objective == "reconstruct" else "smooth_rank")

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoders: whole slides, nothing predicted."""
        super().enter(stage)
        if self.decoder is not None:
            self.decoder.requires_grad_(stage == "pretrain")

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln B. Of predicted genes `mean_genome` is logged beside the loss."""
        return {"contrast": math.log(max(2, batch_size))} if self.options.objective == "contrast" else {}

    # ----------------------------------------------------------------------------------------------------------- data

    def reads(self) -> tuple[str, ...]:
        return self.stages()[0].fields if self.stage else self.inputs

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        made = super().sample(record, rng)
        if self.stage:
            made.arrays["patches"] = self._drawn(made.arrays["patches"], rng)
            made.arrays["patient"] = patient_number(record.patient)
            if self.options.objective == "intra":
                N = len(made.arrays["patches"])
                made.arrays["keep"] = rng.permutation(N) >= round(N * self.options.mask_ratio)
        return made

    def _drawn(self, patches_NF: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The patches that a visit takes."""
        n, N = self.options.tokens, len(patches_NF)
        if n is None:
            return patches_NF
        if self.options.either(self.options.replace, False, True):
            return patches_NF[rng.integers(0, N, n)]
        return patches_NF if n >= N else patches_NF[np.sort(rng.choice(N, n, replace=False))]

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        x_BNF, mask_BN = self.bags(batch)
        slide_BE = self.slide(x_BNF, mask_BN)[1]
        weight_B = batch.weight_B * batch.present["patches"]
        learn = {"contrast": self._contrast, "reconstruct": self._reconstruct, "intra": self._intra}
        loss, diagnostics, features = learn[self.options.objective](batch, x_BNF, mask_BN, slide_BE, weight_B)
        rows_GE = gather(slide_BE.detach())[gather(weight_B) > 0]
        diagnostics["smooth_rank"] = smooth_rank(rows_GE)
        return Output({self.options.objective: loss}, loss, diagnostics, {"slide": slide_BE.detach(), **features})

    def _contrast(
        self, batch: Batch, x_BNF: Tensor, mask_BN: Tensor, slide_BE: Tensor, weight_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        o = self.options
        assert self.genes is not None
        gene_BE = self.genes(self.expression(batch))
        same: SamePatient = o.either(o.same_patient, "positive", "negative")
        scale, weight_B = slide_BE.new_tensor(1 / o.tau, dtype=torch.float32), weight_B * batch.present["rna"]
        pairs = all_pairs(slide_BE, gene_BE, scale, weight_B, batch["patient"], same)
        found = retrieval(pairs)
        diagnostics = {
            "slide_to_genes": found["top1_a_to_b"],
            "genes_to_slide": found["top1_b_to_a"],
            "cosine_positive": found["positive"] * o.tau,
            "cosine_negative": found["negative"] * o.tau,
            "contrast_chance": chance(pairs),
        }
        return directed(pairs, 0.5 if o.symmetric else 1.0), diagnostics, {"gene": gene_BE.detach()}

    def _reconstruct(
        self, batch: Batch, x_BNF: Tensor, mask_BN: Tensor, slide_BE: Tensor, weight_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """And what predicting the mean genome would cost."""
        assert self.decoder is not None
        z_BG, weight_B = self.expression(batch), weight_B * batch.present["rna"]
        loss, mean = (_mse(x, z_BG, weight_B) for x in (self.decoder(slide_BE), torch.zeros_like(z_BG)))
        return loss, {"mean_genome": mean}, {}

    def _intra(
        self, batch: Batch, x_BNF: Tensor, mask_BN: Tensor, slide_BE: Tensor, weight_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Both views carry the gradient, as published."""
        if self.options.either(self.options.masks, "intended", "official") == "official":
            hidden_B = (mask_BN & ~batch["keep"]).sum(1)
            other_BNF = x_BNF * hidden_B[:, None, None].to(x_BNF.dtype)
        else:
            other_BNF = x_BNF * batch["keep"][..., None]
        return _mse(self.slide(other_BNF, mask_BN)[1], slide_BE, weight_B), {}, {}

    # --------------------------------------------------------------------------------------------------------- encode

    def encode(self, batch: Batch) -> Encoded:
        """Tokens h [B, N, D] of all patches; pooled is the slide's vector, or [slide ; genes] where genes are read. Absent halves are 0."""
        slide_BE, h = one_by_one(self.rows(batch), self._whole)
        pooled = slide_BE * batch.present["patches"][:, None]
        if self.genes is None or "rna" not in batch:
            return Encoded.of_bags(h, pooled)
        known_B1 = batch.present["rna"][:, None]
        gene_BE = self.genes(self.expression(batch)) * known_B1
        return Encoded.of_bags(h, torch.cat([pooled, gene_BE], 1), tokens={"genes": (gene_BE[:, None], known_B1)})

    def _whole(self, x_BNF: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [B, E] and embedded patches [B, N, D] of bags without padding."""
        h_BND, slide_BE = self.slide(x_BNF, torch.ones_like(x_BNF[..., 0], dtype=torch.bool))
        return slide_BE, h_BND

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Of each head, the weights as shares of their sum."""
        x_BNF, mask_BN = self.bags(batch)
        score_BNK = self.slide.scores(self.slide.embed(x_BNF))
        each = [shared_out(self.slide.weights(score_BN, mask_BN), mask_BN) for score_BN in score_BNK.unbind(-1)]
        return {"attention" if len(each) == 1 else f"head {i}": w_BN for i, w_BN in enumerate(each, 1)}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return tuple(self.slide.attention) if self.slide.activation == "softmax" else ()

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`similarity` for TensorBoard: cosines of slides' vectors (rows) with the genes', or with each other's."""
        few, was = first(batch), self.training
        self.eval()
        slide_BE = self.slide(*self.bags(few))[1]
        other_BE = self.genes(self.expression(few)) if self.genes is not None else slide_BE
        self.train(was)
        return {"similarity": matrices([[alike(slide_BE, other_BE)]])}


def _mse(a_BX: Tensor, b_BX: Tensor, weight_B: Tensor) -> Tensor:
    """Mean square of the gap, over the samples of all ranks that count."""
    gap_B = (a_BX.float() - b_BX.float()).square().mean(1)
    return global_mean((gap_B * weight_B).sum(), weight_B.sum())

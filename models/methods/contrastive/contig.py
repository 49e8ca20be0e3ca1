"""ContIG: Self-supervised Multimodal Contrastive Learning for Medical Imaging with Genetics (Taleb et al. 2022, arXiv 2111.13424).

An image is to find the genetics of its person among those of the batch, and genetics their image: one InfoNCE loss for each genetic
modality, over the samples that have it, each with heads of its own on one image encoder. The image's way weighs more. The deployed
encoder sees images alone. docs/methods/contig.md says what the published code does otherwise.

Shape letters: B samples, F features of a modality, L tokens, D encoder width, C compared width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Output, Record, Sample, Schema, Stage
from models.encoders.gene_mlp import NormedLayers
from models.heads.projection import ProjectionHead
from models.layers.batch_norm import counted
from models.losses.contrastive import Pairs, SamePatient, all_pairs, chance, directed, retrieval
from models.methods._genetics import ReadsGenetics
from models.methods.contrastive._views import PairedOptions, ViewedMethod
from models.pictures import alike, first, matrices, row_of_images
from models.registry import register
from models.transforms.expression import ExpressionOptions

SHARED = "shared"


class ContigGenes(ExpressionOptions):
    """Of the genetic vectors."""

    layers: tuple[int, ...] = ()
    """Widths of layers (linear, ReLU, norm) in front of each gene head; none: it takes the vector itself, as is the published default
    (theirs are 2048 for `H1`, and twice that for `H12`)."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if any(width < 1 for width in self.layers):
            yield f"{where}.layers: {list(self.layers)} holds a width below 1; give positive widths"


class ContigOptions(PairedOptions):
    conventions: Literal["recommended", "published"] = "recommended"
    """Norms of `genes.layers`: of each sample alone; or, as published, batch norms in which the zeros of absent samples count. Unknown
    values: the likeliest one, or 0."""
    genetics: tuple[str, ...] = ("snp", "pgs", "burden")
    """Genetic modalities, by field name: any vector field."""
    genes: ContigGenes = ContigGenes()
    """The genetic vectors. snp, burden and mutation are centred alone and never clipped."""
    missing: Literal["mask", "drop"] = "mask"
    """Samples that lack a modality: left out of its comparison (published: `outer`), or of all of them (`inner`)."""
    alpha: float = Bounded(0.75, ge=0, le=1)
    """Weight of the way from images to genetics; the way back has the rest."""
    temperature: float = Bounded(0.1, gt=0)
    """Temperature tau of the similarities."""
    dim: int = Bounded(128, ge=1)
    """Width of the compared vectors."""
    hidden: int = Bounded(2048, ge=1)
    """Width inside the heads."""
    heads: Literal["per_modality", "shared"] = "per_modality"
    """Heads on the image's vector: one for each genetic modality, or one for all."""
    same_patient: SamePatient = "positive"
    """Other images of one patient in a batch, whose genetics are the same: each other's positives too, left out, or (as published)
    negatives."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not self.genetics:
            yield f"{where}.genetics: it is empty, and contig compares images with genetics; name fields, or take simclr for images alone"


@register("contig")
class Contig(ReadsGenetics, ViewedMethod):
    """`image` (the encoder), `image_heads` and `genes` (layers and head of each modality)."""

    Options = ContigOptions
    paper = "Taleb et al., ContIG: Self-supervised Multimodal Contrastive Learning for Medical Imaging with Genetics, CVPR 2022"
    official = "paper"
    count = 1
    options: ContigOptions

    def __init__(self, options: ContigOptions, schema: Schema):
        o = options
        super().__init__(options, schema)
        names = self.widths if o.heads == "per_modality" else (SHARED,)
        self.image_heads = nn.ModuleDict({n: self._head(self.image.width) for n in names})
        self.genes = nn.ModuleDict({n: self._branch(width) for n, width in self.widths.items()})
        self.enter("")

    def _head(self, width: int) -> ProjectionHead:
        return ProjectionHead(width, self.options.hidden, self.options.dim, 2, norm="none")

    def _branch(self, width: int) -> nn.Sequential:
        o, layers = self.options, self.options.genes.layers
        norm: Literal["batch", "layer"] = "batch" if o.conventions == "published" else "layer"
        return nn.Sequential(NormedLayers(width, layers, norm), self._head((width, *layers)[-1]))

    def stages(self) -> tuple[Stage, ...]:
        fields = ("image", *self.options.genetics)
        return (Stage("pretrain", fields, self.options.order, compares=True, epochs=100),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: whole images, nothing of genetics."""
        super().enter(stage)
        frozen = self.frozen(head_norm=False) if stage else ("image_heads.", "genes.")
        for name, p in self.named_parameters():
            p.requires_grad_(not name.startswith(frozen))

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln of the samples, if all have the modality."""
        return dict.fromkeys(self.widths, math.log(max(2, batch_size)))

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """In pre-training also the genetic vectors."""
        made = super().sample(record, rng)
        if not self.stage:
            return made
        vectors, has = self._read_genetics(record)
        return Sample(made.arrays | vectors, made.present | has)

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        compared, pooled_BD = self._compared(batch)
        losses, diagnostics, counts = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()
        for name, (image_BC, gene_BC) in compared.items():
            pairs = self._pairs(image_BC, gene_BC, batch, name)
            losses[name], said = directed(pairs, self.options.alpha), self._diagnostics(pairs, name)
            diagnostics |= said
            # Over those alone that have the modality: an evaluation weighs its batches by them.
            counts |= dict.fromkeys((name, *said), self._weight(batch, name).sum())
        # By the number of modalities, also where nobody in the batch has one of them: its share of the gradient is then 0.
        total = torch.stack(list(losses.values())).mean()
        return Output(losses, total, diagnostics, {"image": pooled_BD.detach()}, counts)

    def _compared(self, batch: Batch) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
        """Of each modality the vectors of images and of genetics [B, C]; and the image encoder's [B, D]."""
        values = self._values(batch)
        with counted(self.weight(batch)):
            pooled_BD = self.pooled(self.image.tokens(self.stacked(batch)))
            seen = {n: head(pooled_BD) for n, head in self.image_heads.items()}
            made = {n: branch(values[n].to(self.dtype)) for n, branch in self.genes.items()}
        compared = {n: (seen[n if n in seen else SHARED], gene_BC) for n, gene_BC in made.items()}
        return compared, pooled_BD

    def _values(self, batch: Batch) -> dict[str, Tensor]:
        """Genetic vectors as their branches take them, [B, F] each."""
        values, known = self._vectors(batch)
        if self.options.conventions == "recommended":
            return values
        return {n: torch.where(known[n] & batch.present[n][:, None], x_BF, 0.0) for n, x_BF in values.items()}

    def _weight(self, batch: Batch, name: str) -> Tensor:
        """1 for a sample that is compared with this modality, [B]."""
        needed = self.widths if self.options.missing == "drop" else (name,)
        return self.weight(batch) * torch.stack([batch.present[n] for n in needed]).all(0)

    def _pairs(self, image_BC: Tensor, gene_BC: Tensor, batch: Batch, name: str) -> Pairs:
        o = self.options
        scale = image_BC.new_tensor(1 / o.temperature, dtype=torch.float32)
        return all_pairs(image_BC, gene_BC, scale, self._weight(batch, name), batch["patient"], o.same_patient)

    def _diagnostics(self, pairs: Pairs, name: str) -> dict[str, Tensor]:
        found, tau = retrieval(pairs), self.options.temperature
        return {
            f"image_to_{name}": found["top1_a_to_b"],
            f"{name}_to_image": found["top1_b_to_a"],
            f"{name}_cosine_positive": found["positive"] * tau,
            f"{name}_cosine_negative": found["negative"] * tau,
            f"{name}_chance": chance(pairs),
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: the images, and of each modality the cosines of their vectors (rows) with its own."""
        few = first(batch)
        was, _ = self.training, self.eval()
        compared, _ = self._compared(few)
        self.train(was)
        cosines = [[alike(image_BC, gene_BC) for image_BC, gene_BC in compared.values()]]
        return {"views": row_of_images(few["views"][:, 0]), "similarity": matrices(cosines)}

"""What systems share that read a slide and its genome: those that are pre-trained on both, and those that learn a task from both together.

Shape letters: B samples, N instances, F patch feature width, G genes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, MethodError, Options, Record, Sample, Schema
from models.methods.slides._bag import BagMethod, width_problems
from models.transforms.expression import ExpressionOptions, standardised


class BagGenes(ExpressionOptions):
    """Of the genes: how they are given to their network."""

    at_most: ClassVar[bool] = False
    """Whether a data set may have fewer genes than `top`: all are taken then."""

    top: int | None = Bounded(None, ge=1)
    """Only so many genes, those of highest deviation in the training split; null takes all."""

    def problems_of(self, schema: Schema) -> Iterable[str]:
        """What this data set does not bear."""
        rna = schema.fields.get("rna")
        if self.normalise == "stats" and rna is not None and (rna.mean is None or rna.std is None):
            yield (
                f"method.genes.normalise=stats needs statistics of 'rna', which {schema.source} lacks; pack it again, or set "
                "method.genes.normalise=none"
            )
        else:
            yield from self.clip_problems("method.genes", ("rna",), schema)
        if self.top is not None and rna is not None and rna.shape and rna.shape[-1] is not None:
            if self.at_most and self.top >= rna.shape[-1]:
                return
            if rna.std is None:
                yield f"method.genes.top needs statistics of 'rna', which {schema.source} lacks; pack it again, or leave it out"
            elif self.top > rna.shape[-1]:
                yield f"method.genes.top: {self.top} of the {rna.shape[-1]} genes of {schema.source}; give fewer, or leave it out"


class FusedGenes(BagGenes):
    """Of the genes: how they are given to their network, and its activation."""

    act: Literal["elu", "selu"] | None = None
    """Activation of the gene network (of each gene set's); null: as `conventions` says."""


class GeneBagOptions(Options):
    renamed: ClassVar[Mapping[str, str]] = {
        "normalise": "genes.normalise",
        "gene_clip": "genes.clip",
        "genes_top": "genes.top",
    }

    genes: BagGenes = BagGenes()
    """The genes."""


class FusedOptions(GeneBagOptions):
    renamed: ClassVar[Mapping[str, str]] = {**GeneBagOptions.renamed, "snn_act": "genes.act"}

    conventions: Literal["recommended", "published"] = "recommended"
    """Gene network, unless `genes.act` says it: ELU before AlphaDropout as published, or SELU, whose constants AlphaDropout has."""
    genes: FusedGenes = FusedGenes()
    """The genes, and their network's activation."""

    @property
    def gene_act(self) -> Literal["elu", "selu"]:
        """The activation of the gene network."""
        return self.genes.act or ("elu" if self.conventions == "published" else "selu")


class GeneBagMethod(BagMethod):
    """Base of systems that read `patches` [N, F] and `rna` [G]: of genes the statistics, the choice, and z-scores."""

    inputs: tuple[str, ...] = ("patches", "rna")
    options: GeneBagOptions
    gene_mean_G: Tensor
    gene_std_G: Tensor
    gene_index_G: Tensor

    def __init__(self, options: GeneBagOptions, schema: Schema):
        problems = [p for n, axes in (("patches", 2), ("rna", 1)) for p in width_problems(schema, n, axes, self.name)]
        problems += options.genes.problems_of(schema)
        if problems:
            raise MethodError(problems)
        super().__init__(options, schema)
        field = schema.need("rna")
        self.n_genes = field.width
        mean, std = options.genes.scale(field, self.n_genes)
        index = np.arange(self.n_genes)
        top = options.genes.top
        if top is not None and top < self.n_genes:
            index = np.sort(np.argsort(-np.asarray(field.std), kind="stable")[:top])
        self.register_buffer("gene_index_G", torch.from_numpy(index))
        # A gene that never varies carries nothing: it becomes 0, not a division by zero.
        self.register_buffer("gene_mean_G", torch.from_numpy(mean.copy()))
        self.register_buffer("gene_std_G", torch.from_numpy(np.where(std > 0, std, 1.0).astype(np.float32)))

    def reads(self) -> tuple[str, ...]:
        """The fields that `sample` reads now."""
        return self.inputs

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        sample = super().sample(record, rng)
        if "rna" in self.reads():
            present = record.has("rna")
            sample.arrays["rna"] = record.read("rna") if present else np.zeros(self.n_genes, np.float16)
            sample.present["rna"] = present
        return sample

    def expression(self, batch: Batch) -> Tensor:
        """What is read of the genes [B, G], 0 (the mean genome) where a sample has none."""
        z_BG = standardised(batch["rna"], self.gene_mean_G, self.gene_std_G, self.options.genes.clip)
        return torch.where(batch.present["rna"][:, None], z_BG, 0.0).to(self.dtype)[:, self.gene_index_G]


class FusedMethod(GeneBagMethod):
    """Base of systems without pre-training that read `patches` [N, F] and `rna` [G].

    Where a sample lacks its slide (or has one without patches) or its genes, the pooled vector is zero and no token is real: there is no
    answer from half of what the system needs.
    """

    pairs = "slide bag + RNA-seq, with a task's labels"
    needs: ClassVar[tuple[str, ...]] = ("slide", "genes")

    def genes(self, batch: Batch) -> Tensor:
        """What is read of the genes [B, G], 0 (the mean genome) where a sample has none."""
        if "rna" not in batch:
            raise MethodError([f"{self.name} needs slide and genes together: set inputs=multimodal"])
        return self.expression(batch)

    gated: tuple[bool, bool] = (False, False)
    """Which sides of the fusion have a gate, slide and genes."""

    def answerable(self, batch: Batch) -> Tensor:
        """Those with both: there is no answer from a part. (Genes that are not read at all are refused by `genes`.)"""
        return batch.present["patches"] & batch.present.get("rna", batch.present["patches"])

    def answers(self, batch: Batch, pooled_BD: Tensor, open_B2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The fused vectors, zero where a modality is missing, and by name how far the gates that there are stand open [B]."""
        absent_B1 = ~self.answerable(batch)[:, None]
        open_B2 = open_B2.masked_fill(absent_B1, torch.nan)
        gates = {n: open_B2[:, i] for i, n in enumerate(("gate_slide", "gate_genes")) if self.gated[i]}
        return pooled_BD.masked_fill(absent_B1, 0.0), gates

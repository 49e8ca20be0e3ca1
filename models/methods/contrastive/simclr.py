"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al. 2020, arXiv 2002.05709).

Two random views of each image go through one encoder and a projection head. Each view is to find the other one of its image among all
other views of the batch (NT-Xent, eq. 1). The head is that of SimCLR v2 (arXiv 2006.10029), three layers; the deployed encoder goes
without it.

Shape letters: B samples, N = 2 B views, L tokens, D encoder width, C compared width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, Output, Schema, Stage
from models.heads.projection import Norm, ProjectionHead
from models.layers.batch_norm import counted
from models.losses.contrastive import Pairs, chance, nt_xent, retrieval, view_pairs
from models.methods.contrastive._views import PairedOptions, ViewedMethod, halves, stacked_weight
from models.pictures import alike, first, matrices, row_of_images
from models.registry import register


class SimclrOptions(PairedOptions):
    temperature: float = Bounded(0.1, gt=0)
    """Temperature tau of the similarities (0.5 for CIFAR)."""
    proj_dim: int = Bounded(128, ge=1)
    """Width of the compared vectors."""
    proj_layers: int = Bounded(3, ge=1, le=16)
    """Linear layers of the head: 3 as version 2, 2 as version 1; those between are as wide as the encoder."""
    head_norm: Norm = "batch"
    """Batch norm over all ranks and both views after each of them, or none."""


@register("simclr")
class Simclr(ViewedMethod):
    """`image` (the encoder) and `head`; batch statistics are of both views together and of all ranks."""

    Options = SimclrOptions
    paper = "Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020"
    official = "simclr"
    options: SimclrOptions

    def __init__(self, options: SimclrOptions, schema: Schema):
        super().__init__(options, schema)
        o, D = options, self.image.width
        self.head = ProjectionHead(D, D, o.proj_dim, o.proj_layers, o.head_norm, std=0.01)
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", self.inputs, self.options.order, compares=True, epochs=50),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: no views, no head."""
        super().enter(stage)
        frozen = self.frozen(self.options.head_norm == "batch") if stage else ("head.",)
        for name, p in self.named_parameters():
            p.requires_grad_(not name.startswith(frozen))

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln of the candidates of a view, which are all views but itself."""
        return {"contrastive": math.log(max(2, 2 * batch_size - 1))}

    def forward(self, batch: Batch) -> Output:
        pairs, pooled_BD = self._pairs(batch)
        loss = nt_xent(pairs)
        found, tau = retrieval(pairs), self.options.temperature
        diagnostics = {
            "top1": found["top1_a_to_b"],
            "cosine_positive": found["positive"] * tau,
            "cosine_negative": found["negative"] * tau,
            "contrastive_chance": chance(pairs),
        }
        return Output({"contrastive": loss}, loss, diagnostics, {"image": pooled_BD.detach()})

    def _pairs(self, batch: Batch) -> tuple[Pairs, Tensor]:
        """All pairs of views, and the encoder's vectors of the first ones."""
        o, weight_B = self.options, self.weight(batch)
        # One pass for both views: their statistics are joint.
        with counted(stacked_weight(weight_B)):
            pooled_ND = self.pooled(self.image.tokens(self.stacked(batch)))
            a_BC, b_BC = halves(self.head(pooled_ND))
        pairs = view_pairs(a_BC, b_BC, 1 / o.temperature, weight_B, batch["patient"], o.same_patient)
        return pairs, halves(pooled_ND)[0]

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: first views above second ones, and the cosines of their compared vectors."""
        few = first(batch)
        was, _ = self.training, self.eval()
        a_BC, b_BC = halves(self.head(self.pooled(self.image.tokens(self.stacked(few)))))
        self.train(was)
        rows = [row_of_images(few["views"][:, v]) for v in range(2)]
        return {"views": np.concatenate(rows), "similarity": matrices([[alike(a_BC, b_BC)]])}

"""ConVIRT: Contrastive Learning of Medical Visual Representations from Paired Images and Text (Zhang et al., MLHC 2022, arXiv 2010.00747).

An image and a sentence of its report each go through an encoder and a projection head; in a batch each image is to find its sentence
(weight 0.75) and each sentence its image (0.25). docs/methods/convirt.md says what paper and the two public codes do and what was chosen.

Shape letters: B samples, T image tokens, L token places, D image width, E text width, C compared width.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, Output, Schema, Stage
from models.heads.projection import Norm, ProjectionHead
from models.layers.batch_norm import counted
from models.losses.contrastive import Pairs, all_pairs, chance, directed, retrieval
from models.methods.contrastive._report import ReportPairMethod, ReportPairOptions
from models.pictures import alike, first, matrices, row_of_images
from models.registry import register


class ConvirtOptions(ReportPairOptions):
    published: ClassVar = {
        "pool_text": "mean",
        "train_text": False,
        "flip": True,
        "crop_scale": (0.8, 1.0),
        "clean": "none",
        "compared": "rank",
        "same_text": "negative",
        "same_patient": "negative",
        "order": "shuffle",
    }

    rotate: float = Bounded(20.0, ge=0, le=180)
    """Rotation by up to so many degrees either way."""
    brightness: float = Bounded(0.4, ge=0, le=1)
    """Change of brightness and of contrast by up to this share either way."""
    blur: float = Bounded(0.5, ge=0, le=1)
    """Share of images that are blurred (Gaussian, deviation 0.1 to 3 pixels)."""
    pool_text: Literal["max", "mean", "cls"] = "max"
    """The text's vector: the maximum over its tokens' (the paper), their mean, or that of [CLS]."""
    project: int = Bounded(512, ge=1)
    """Width of the compared vectors."""
    hidden: int | None = Bounded(None, ge=1)
    """Width within the projection heads; null: as wide as the encoder before each."""
    head_norm: Norm = "none"
    """Batch norm over all ranks in the projection heads, or none (the paper)."""
    temperature: float = Bounded(0.1, gt=0)
    """Temperature tau, fixed."""
    image_to_text: float = Bounded(0.75, ge=0, le=1)
    """Weight of image -> text; text -> image has the rest."""
    reduction: Literal["weighted", "sum"] = "weighted"
    """The two directions by their weights, or simply added (a later code)."""
    train_text: bool = True
    """False: the text encoder and its head stay at their first weights (what the published reimplementation comes to)."""


@register("convirt")
class Convirt(ReportPairMethod):
    """`image`, `text`, and a projection head each."""

    Options = ConvirtOptions
    paper = (
        "Zhang et al., Contrastive Learning of Medical Visual Representations from Paired Images and Text, MLHC 2022"
    )
    options: ConvirtOptions

    def __init__(self, options: ConvirtOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        last: Any = "plain" if o.head_norm == "batch" else "none"
        self.image_head, self.text_head = (
            ProjectionHead(w, o.hidden or w, o.project, 2, o.head_norm, last)
            for w in (self.image.width, self.text.width)
        )
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", ("image", "report"), self.options.order, compares=True, epochs=200),)

    def enter(self, stage: str) -> None:
        super().enter(stage)
        if not self.options.train_text:
            for name, p in self.named_parameters():
                if name.startswith(("text.", "text_head.")):
                    p.requires_grad_(False)

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln B in either direction."""
        return {"contrastive": math.log(max(2, batch_size)) * (2 if self.options.reduction == "sum" else 1)}

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch)
        image_BC, text_BC, pooled_BD = self._projected(batch)
        loss = self.over(lambda: self._loss(self._pairs(image_BC, text_BC, batch)), weight_B)
        diagnostics, counts = self.report_diagnostics(batch)
        with torch.no_grad():
            pairs = self._pairs(image_BC, text_BC, batch)
            found = retrieval(pairs)
            diagnostics |= {
                "image_to_text": found["top1_a_to_b"],
                "text_to_image": found["top1_b_to_a"],
                "cosine_positive": found["positive"] * o.temperature,
                "cosine_negative": found["negative"] * o.temperature,
                "contrastive_chance": self.over(lambda: chance(self._pairs(image_BC, text_BC, batch)), weight_B)
                * (2 if o.reduction == "sum" else 1),
            }
        return Output({"contrastive": loss}, loss, diagnostics, {"image": pooled_BD.detach()}, counts)

    def embed_images(self, batch: Batch) -> Tensor:
        return self.image_head(self.pooled(self.image.tokens(self.tower_input(batch))))

    def embed_texts(self, batch: Batch) -> Tensor:
        return self.text_head(self._text(batch))

    def similarity_scale(self) -> float:
        return 1 / self.options.temperature

    def _projected(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compared vectors of images and of texts, [B, C], and the images' own [B, D]."""
        with counted(batch.weight_B * batch.present["image"]):
            pooled_BD = self.pooled(self.image.tokens(self.tower_input(batch)))
        text_BE = self._text(batch)
        # A head's statistics are of pairs: an image without a text is compared with nothing.
        with counted(self.weight(batch)):
            return self.image_head(pooled_BD), self.text_head(text_BE), pooled_BD

    def _text(self, batch: Batch) -> Tensor:
        """A vector a text, [B, E]."""
        ids_BL = batch["report"].long()
        real_BL = ids_BL != self.tokens.pad
        x_BLE = self.text(ids_BL, real_BL)["hidden"][-1]
        if self.options.pool_text == "cls":
            return x_BLE[:, 0]
        if self.options.pool_text == "max":
            return x_BLE.masked_fill(~real_BL[..., None], -torch.inf).amax(1)
        share_BL = real_BL / real_BL.sum(1, keepdim=True)
        return torch.einsum("ble,bl->be", x_BLE, share_BL.to(x_BLE.dtype))

    def _pairs(self, image_BC: Tensor, text_BC: Tensor, batch: Batch) -> Pairs:
        o = self.options
        scale = image_BC.new_tensor(1 / o.temperature, dtype=torch.float32)
        weight_B = self.weight(batch)
        return all_pairs(
            image_BC, text_BC, scale, weight_B, batch["patient"], o.same_patient, batch["text"], o.same_text
        )

    def _loss(self, pairs: Pairs) -> Tensor:
        if self.options.reduction == "sum":
            return 2 * directed(pairs, 0.5)
        return directed(pairs, self.options.image_to_text)

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: the images, and the cosines of their compared vectors (rows) with the texts'."""
        few = first(batch)
        was, _ = self.training, self.eval()
        image_BC, text_BC, _ = self._projected(few)
        self.train(was)
        return {"images": row_of_images(few["image"]), "similarity": matrices([[alike(image_BC, text_BC)]])}

"""MGCA: Multi-Granularity Cross-modal Alignment for Generalized Medical Visual Representation Learning (Wang et al., NeurIPS 2022).

Image and report are compared as wholes; each word of a report finds itself in what it saw of its image, and each patch in what it saw of
its report; both foretell each other's prototype. docs/methods/mgca.md says what the published code does and what was chosen.

Shape letters: B samples, R patches, L token places, W word places, D image width, E text width, C compared width, K prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Output, Schema, Stage
from models.encoders.image import ImageOptions
from models.encoders.report_bert import BertOptions
from models.encoders.vit import ViTOptions
from models.heads.projection import Norm, ProjectionHead
from models.layers.batch_norm import counted
from models.losses.contrastive import Pairs, all_pairs, chance, retrieval, symmetric
from models.losses.local_contrastive import words_of
from models.losses.prototypes import Prototypes, swapped
from models.losses.token_alignment import align, clipped
from models.methods.contrastive._report import ReportPairMethod, ReportPairOptions
from models.pictures import alike, first, matrices, row_of_images
from models.registry import register
from models.transforms.report_text import Unit


class MgcaOptions(ReportPairOptions):
    published: ClassVar = {
        "attention_shift": 1,
        "word_classes": "all",
        "normalise_patch_context": False,
        "norm_padding": True,
        "clean": "gloria",
        "normalise": "half",
        "compared": "rank",
        "same_text": "negative",
        "same_patient": "negative",
        "order": "shuffle",
    }

    image: ImageOptions = ViTOptions()
    """The image encoder."""
    text: BertOptions = BertOptions(depth=6)
    """The text encoder."""
    text_unit: Unit = "report"
    """A text is one sentence of the report, another one at every visit, or all of them."""
    project: int = Bounded(128, ge=1)
    """Width of the compared vectors."""
    hidden: int = Bounded(2048, ge=1)
    """Width within the projection heads."""
    head_norm: Norm = "batch"
    """Batch norm over all ranks in the projection heads (the paper), or none."""
    norm_padding: bool = False
    """Places without a word count in the batch norms of words (as published)."""
    temperature: float = Bounded(0.07, gt=0)
    """Temperature of the comparison of wholes, fixed."""
    local_weight: float = Bounded(0.7, ge=0)
    """Weight of the alignment of words and patches; that of the comparison of wholes is 1. 0 leaves it out."""
    local_temperature: float = Bounded(0.1, gt=0)
    """Temperature of the alignment."""
    attention_shift: Literal[0, 1] = 0
    """A word counts by the attention that [CLS] gives to it, or (1, as published) by what it gives to the token behind."""
    word_classes: Literal["real", "all"] = "real"
    """A word is to be found among the words of its report, or (as published) among all places, padding too."""
    normalise_patch_context: bool = True
    """What a patch of a vision transformer finds in a report has length 1; false: as published. (Of a convolutional network always.)"""
    prototype_weight: float = Bounded(0.5, ge=0)
    """Weight of the prototypes; 0 leaves them out."""
    prototypes: int = Bounded(500, ge=2)
    """How many."""
    prototype_temperature: float = Bounded(0.2, gt=0)
    """Temperature of what foretells a prototype."""
    prototype_wait: float = Bounded(0.02, ge=0, le=1)
    """Share of the stage's updates, from its beginning, in which the prototypes stand still (published: one epoch of 50)."""


@dataclass(frozen=True)
class Sides:
    """Both sides of a batch before projection: wholes, patches and words, what counts of these, and which words are there."""

    image_BD: Tensor
    patch_BRD: Tensor
    patch_share_BR: Tensor
    text_BE: Tensor
    word_BWE: Tensor
    word_share_BW: Tensor
    there_BW: Tensor


@register("mgca")
class Mgca(ReportPairMethod):
    """`image`, `text`, a projection head each for wholes, `patch_head` and `word_head` for their parts, `prototypes`."""

    Options = MgcaOptions
    paper = (
        "Wang et al., Multi-Granularity Cross-modal Alignment for Generalized Medical Visual Representation Learning, "
        "NeurIPS 2022"
    )
    by_words = True
    options: MgcaOptions

    def __init__(self, options: MgcaOptions, schema: Schema):
        super().__init__(options, schema)
        o, D, E = options, self.image.width, self.text.width
        self.image_head, self.text_head = self._head(D), self._head(E)
        self.still = False
        if o.local_weight:
            self.patch_head, self.word_head = (
                self._head(D if self._by_patches else self.image.channels[-2]),
                self._head(E),
            )
        if o.prototype_weight:
            self.prototypes = Prototypes(o.project, o.prototypes)
        self.enter("")

    def _head(self, width: int) -> ProjectionHead:
        o = self.options
        last: Any = "plain" if o.head_norm == "batch" else "none"
        return ProjectionHead(width, o.hidden, o.project, 2, o.head_norm, last)

    @property
    def _by_patches(self) -> bool:
        return self.options.image.kind == "vit"

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", ("image", "report"), self.options.order, compares=True, epochs=50),)

    def at(self, done: float) -> None:
        self.still = done < self.options.prototype_wait

    def no_weight_decay(self) -> Iterable[str]:
        # A prototype's length says nothing, so that decay would do nothing but change its rate.
        return [*super().no_weight_decay(), "prototypes.weight_KC"]

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln B in either direction, added; of prototypes ln of their number."""
        known = {"contrastive": 2 * math.log(max(2, batch_size))}
        return known | ({"prototype": math.log(self.options.prototypes)} if self.options.prototype_weight else {})

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch)
        s = self._sides(batch)
        image_BC, text_BC = self._wholes(s, weight_B)
        losses = {"contrastive": self.over(lambda: 2 * symmetric(self._pairs(image_BC, text_BC, batch)), weight_B)}
        if o.local_weight:
            parts = self._parts(s, weight_B)
            losses["local"] = self.over(lambda: self._local(*parts, s, weight_B), weight_B)
        if o.prototype_weight:
            a_BK, b_BK = (self.prototypes(x, self.still) for x in (image_BC, text_BC))
            losses["prototype"] = self.over(lambda: swapped(a_BK, b_BK, weight_B, o.prototype_temperature), weight_B)
        diagnostics, counts = self.report_diagnostics(batch)
        with torch.no_grad():
            pairs = self._pairs(image_BC, text_BC, batch)
            found = retrieval(pairs)
            diagnostics |= {
                "image_to_text": found["top1_a_to_b"],
                "text_to_image": found["top1_b_to_a"],
                "contrastive_chance": 2 * self.over(lambda: chance(self._pairs(image_BC, text_BC, batch)), weight_B),
            }
        weights = {"contrastive": 1.0, "local": o.local_weight, "prototype": o.prototype_weight}
        total = torch.stack([weights[n] * v for n, v in losses.items()]).sum()
        return Output(losses, total, diagnostics, {"image": s.image_BD.detach()}, counts)

    def embed_images(self, batch: Batch) -> Tensor:
        return self.image_head(self._image_side(batch)[0])

    def embed_texts(self, batch: Batch) -> Tensor:
        return self.text_head(self._text_side(batch)[0])

    def similarity_scale(self) -> float:
        return 1 / self.options.temperature

    def _sides(self, batch: Batch) -> Sides:
        return Sides(*self._image_side(batch), *self._text_side(batch))

    def _image_side(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The image's vector [B, D], its patches [B, R, D], and how much each counts, by the class token's attention or all alike."""
        with counted(batch.weight_B * batch.present["image"]):
            if self._by_class:
                tokens_BTD, row_BR = self.image.tokens_and_class_row(self.tower_input(batch))
                return tokens_BTD[:, 0], tokens_BTD[:, self.image.extra :], clipped(row_BR)
            if self._by_patches:
                patch_BRD = self.image.tokens(self.tower_input(batch))
                image_BD = patch_BRD.mean(1)
            else:
                fine_BCHW, last_BDHW = self.image.maps(self.tower_input(batch), 2)
                image_BD, patch_BRD = last_BDHW.mean((2, 3)), fine_BCHW.flatten(2).transpose(1, 2)
        return image_BD, patch_BRD, patch_BRD.new_full(patch_BRD.shape[:2], 1 / patch_BRD.shape[1], dtype=torch.float32)

    def _text_side(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[CLS] [B, E]; words and the end token [B, L - 1, E]; how much each counts, by [CLS]'s attention; and which are there."""
        ids_BL, word_BL = batch["report"].long(), batch["word"]
        made = self.text(ids_BL, ids_BL != self.tokens.pad, weights=True)
        unit_BLE = words_of(made["hidden"][-1], word_BL)
        word_share_BW, there_BW = self._word_shares(made["weights"].detach(), word_BL)
        return unit_BLE[:, 0], unit_BLE[:, 1:], word_share_BW, there_BW

    def _word_shares(self, share_BHLL: Tensor, word_BL: Tensor) -> tuple[Tensor, Tensor]:
        row_BL = share_BHLL[:, :, 0].mean(1)
        if self.options.attention_shift:
            row_BL = nn.functional.pad(row_BL[:, 1:], (0, 1))
        share_BW = words_of(row_BL[..., None], word_BL)[:, 1:, 0]
        there_BW = torch.arange(share_BW.shape[1], device=word_BL.device) < word_BL.amax(1)[:, None]
        return clipped(share_BW), there_BW

    def _wholes(self, s: Sides, weight_B: Tensor) -> tuple[Tensor, Tensor]:
        # A head's statistics are of pairs: an image without a text is compared with nothing.
        with counted(weight_B):
            return self.image_head(s.image_BD), self.text_head(s.text_BE)

    def _parts(self, s: Sides, weight_B: Tensor) -> tuple[Tensor, Tensor]:
        """Projected patches [B, R, C] and words [B, W, C]."""
        every_BW = torch.ones_like(s.there_BW) if self.options.norm_padding else s.there_BW
        every_BR = torch.ones_like(s.patch_share_BR, dtype=torch.bool)
        made = []
        for head, x, counts in ((self.patch_head, s.patch_BRD, every_BR), (self.word_head, s.word_BWE, every_BW)):
            with counted((weight_B[:, None] * counts).flatten()):
                made.append(head(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return made[0], made[1]

    def _local(self, patch_BRC: Tensor, word_BWC: Tensor, s: Sides, weight_B: Tensor) -> Tensor:
        """Words look at patches, and patches at words."""
        o = self.options
        there_BR = torch.ones_like(s.patch_share_BR, dtype=torch.bool)
        patches, words = (patch_BRC, there_BR, s.patch_share_BR), (word_BWC, s.there_BW, s.word_share_BW)
        by_word = align(*words, *patches[:2], weight_B, o.local_temperature, everywhere=o.word_classes == "all")
        normalise = o.normalise_patch_context or not self._by_patches
        return by_word + align(*patches, *words[:2], weight_B, o.local_temperature, normalise)

    def _pairs(self, image_BC: Tensor, text_BC: Tensor, batch: Batch) -> Pairs:
        o, weight_B = self.options, self.weight(batch)
        scale = image_BC.new_tensor(1 / o.temperature, dtype=torch.float32)
        return all_pairs(
            image_BC, text_BC, scale, weight_B, batch["patient"], o.same_patient, batch["text"], o.same_text
        )

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: the images, and the cosines of their compared vectors (rows) with the texts'."""
        few = first(batch)
        was, _ = self.training, self.eval()
        image_BC, text_BC = self._wholes(self._sides(few), self.weight(few))
        self.train(was)
        return {"images": row_of_images(few["image"]), "similarity": matrices([[alike(image_BC, text_BC)]])}

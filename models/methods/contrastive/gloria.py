"""GLoRIA: A Multimodal Global-Local Representation Learning Framework for Label-efficient Medical Image Recognition (Huang et al., ICCV
2021).

Images and texts are compared as wholes and word by word: every word of every text looks at the cells of every image. GLoRIA* of the
Masked Record Modeling paper has a vision transformer, whose patches are the cells. docs/methods/gloria.md says where paper and code differ.

Shape letters: B samples, R cells, L token places, D image width, E text width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Output, Schema, Stage
from models.contract.image_view import ImageView
from models.layers.batch_norm import counted
from models.losses.contrastive import Pairs, SamePatient, all_pairs, chance, compared, retrieval, symmetric
from models.losses.local_contrastive import Aggregate, word_similarities, words_of
from models.methods.contrastive._report import ReportPairMethod, ReportPairOptions
from models.pictures import alike, first, matrices, row_of_images
from models.registry import register


class GloriaOptions(ReportPairOptions):
    published: ClassVar = {
        "agg": "sum",
        "word_softmax": True,
        "word_power": False,
        "count_unknown": False,
        "clean": "gloria",
        "normalise": "half",
        "compared": "rank",
        "same_text": "negative",
        "same_patient": "negative",
        "order": "shuffle",
    }

    report_length: int = Bounded(97, ge=3)
    """Tokens of a text with [CLS] and its end; longer ones are cut (and counted in the diagnostics)."""
    crop_size: int | None = Bounded(None, ge=8)
    """Pixels of the crop, when other than `image.image_size`, to which it is then scaled (published: 224, scaled to 299)."""
    local_layer: int | None = Bounded(None, ge=1)
    """Of a vision transformer: the block whose patches are the cells; null: the last. (Of a convolutional network it is the last map but
    one.)"""
    last_layers: int = Bounded(4, ge=1)
    """Layers of the text encoder, from the top, whose vectors of a token are added."""
    global_weight: float = Bounded(1.0, ge=0)
    """Weight of the comparison of wholes."""
    local_weight: float = Bounded(1.0, ge=0)
    """Weight of the comparison word by word; 0 leaves it out."""
    attention_scale: float = Bounded(4.0, gt=0)
    """Factor of the logits before the softmax over cells."""
    word_scale: float = Bounded(5.0, gt=0)
    """Factor of a word's cosine with what it finds in an image."""
    logit_scale: float = Bounded(10.0, gt=0)
    """Factor of similarities in the cross-entropies, of wholes and of words."""
    word_softmax: bool = True
    """A softmax over words before that over cells (the code; the paper has none)."""
    word_power: bool = False
    """The sum of exponentials over words is raised to the power 1 / `word_scale` (the paper), or not (the code)."""
    agg: Aggregate = "mean"
    """How words make a text: the mean of their exponentials, or the sum, by which longer texts fit every image better."""
    count_unknown: bool = True
    """Unknown words count as words; the published code counts none and loses as many words at a text's end instead."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.global_weight == self.local_weight == 0:
            yield f"{where}.global_weight and {where}.local_weight are both 0: nothing is learned; give one of them"
        if self.last_layers > self.text.depth + 1:
            yield f"{where}.last_layers: {self.last_layers} of {where}.text.depth={self.text.depth}; give at most {self.text.depth + 1}"
        if self.local_layer is None:
            return
        if self.image.kind != "vit":
            yield f"{where}.local_layer: {where}.image.kind={self.image.kind} has no blocks; take it out"
        elif self.local_layer > self.image.depth:
            yield f"{where}.local_layer: {self.local_layer} of {where}.image.depth={self.image.depth} blocks; give one of them"


@register("gloria")
class Gloria(ReportPairMethod):
    """`image`, `text`, and one projection each of the image's whole and of its cells to the text's width."""

    Options = GloriaOptions
    paper = "Huang et al., GLoRIA: A Multimodal Global-Local Representation Learning Framework, ICCV 2021"
    by_words = True
    options: GloriaOptions

    def __init__(self, options: GloriaOptions, schema: Schema):
        super().__init__(options, schema)
        cells = self.image.width if self._by_patches else self.image.channels[-2]
        self.global_proj = nn.Linear(self.image.width, self.text.width)
        self.local_proj = nn.Linear(cells, self.text.width, bias=False)
        self.enter("")

    @property
    def _by_patches(self) -> bool:
        return self.options.image.kind == "vit"

    @property
    def side(self) -> int:
        return self.options.crop_size or self.options.image.image_size

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", ("image", "report"), self.options.order, compares=True, epochs=50),)

    def enter(self, stage: str) -> None:
        super().enter(stage)
        for weight, part in ((self.options.global_weight, "global_proj"), (self.options.local_weight, "local_proj")):
            if weight == 0:
                getattr(self, part).requires_grad_(False)

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln B in either direction, added. Word by word none is known: texts differ in length."""
        return {"global": 2 * math.log(max(2, batch_size))} if self.options.global_weight else {}

    # ----------------------------------------------------------------------------------------------------------- data

    def tower_input(self, batch: Batch) -> Tensor:
        x_BCHW, size = self.pixels(batch["image"]), self.options.image.image_size
        if x_BCHW.shape[-1] == size:
            return x_BCHW
        return F.interpolate(x_BCHW, (size, size), mode="bilinear", align_corners=True)

    def image_view(self) -> ImageView | None:
        """None where a crop is scaled up: no description of ours says that."""
        return super().image_view() if self.side == self.options.image.image_size else None

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch)
        whole_BD, cells_BRE = self._image_sides(batch)
        words_BLE, count_B = self._words(batch)
        losses: dict[str, Tensor] = {}
        diagnostics, counts = self.report_diagnostics(batch)
        if o.global_weight:
            image_BE, text_BE = self.global_proj(whole_BD), words_BLE.mean(1)
            losses["global"] = self.over(lambda: 2 * symmetric(self._wholes(image_BE, text_BE, batch)), weight_B)
            diagnostics |= self._found(lambda: self._wholes(image_BE, text_BE, batch), weight_B, "")
            diagnostics["global_chance"] = self.over(
                lambda: 2 * chance(self._wholes(image_BE.detach(), text_BE.detach(), batch)), weight_B
            )
        if o.local_weight:
            pairs: list[Pairs] = []

            def local() -> Tensor:
                pairs.append(self._by_words(cells_BRE, words_BLE, count_B, batch))
                return 2 * symmetric(pairs[0])

            losses["local"] = self.over(local, weight_B)
            diagnostics |= self._found(lambda: pairs[0], weight_B, "local_")
        weights = {"global": o.global_weight, "local": o.local_weight}
        total = torch.stack([weights[n] * v for n, v in losses.items()]).sum()
        return Output(losses, total, diagnostics, {"image": whole_BD.detach()}, counts)

    def embed_images(self, batch: Batch) -> Tensor:
        """Of wholes: the comparison word by word has no vector of a text."""
        return self.global_proj(self._image_sides(batch)[0])

    def embed_texts(self, batch: Batch) -> Tensor:
        return self._words(batch)[0].mean(1)

    def similarity_scale(self) -> float:
        return self.options.logit_scale

    def joint_problem(self) -> str:
        if self.options.global_weight:
            return ""
        return "wholes were never compared in its training (method.global_weight: 0); give a run with a weight above 0"

    def _image_sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The image's vector [B, D], and its cells at the text's width [B, R, E]."""
        with counted(batch.weight_B * batch.present["image"]):
            if self._by_patches:
                depth = len(self.image.blocks)
                cells_BRD, tokens_BTD = self.image.features(
                    self.tower_input(batch), (self.options.local_layer or depth, depth)
                )
                return self.pooled(tokens_BTD), self.local_proj(cells_BRD[:, self.image.extra :])
            fine_BCHW, last_BDHW = self.image.maps(self.tower_input(batch), 2)
        return last_BDHW.mean((2, 3)), self.local_proj(fine_BCHW.flatten(2).transpose(1, 2))

    def _words(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors of words [B, L, E], [CLS] first, and how many of a text are compared: [CLS] and its words, without the end."""
        ids_BL, word_BL = batch["report"].long(), batch["word"]
        hidden = self.text(ids_BL, ids_BL != self.tokens.pad, last=self.options.last_layers)["hidden"]
        # Adding layers and adding pieces may change places: one scatter instead of four.
        words_BLE = words_of(torch.stack(hidden).sum(0), word_BL)
        count_B = word_BL.amax(1)
        if not self.options.count_unknown:
            count_B = count_B - (ids_BL == self.tokens.unk).sum(1)
        return words_BLE, count_B.clamp_min(1)

    def _rules(self, batch: Batch) -> tuple[Tensor, Tensor, SamePatient, Tensor, SamePatient]:
        o = self.options
        return self.weight(batch), batch["patient"], o.same_patient, batch["text"], o.same_text

    def _wholes(self, image_BE: Tensor, text_BE: Tensor, batch: Batch) -> Pairs:
        scale = image_BE.new_tensor(self.options.logit_scale, dtype=torch.float32)
        return all_pairs(image_BE, text_BE, scale, *self._rules(batch))

    def _by_words(self, cells_BRE: Tensor, words_BLE: Tensor, count_B: Tensor, batch: Batch) -> Pairs:
        o = self.options
        fit_GG = word_similarities(
            cells_BRE, words_BLE, count_B, o.attention_scale, o.word_scale, o.agg, o.word_softmax
        )
        scale = o.logit_scale / o.word_scale if o.word_power else o.logit_scale
        return compared(scale * fit_GG, *self._rules(batch))

    def _found(self, pairs: Callable[[], Pairs], weight_B: Tensor, name: str) -> dict[str, Tensor]:
        """Whose nearest counterpart is their own, both ways."""
        with torch.no_grad():
            return {
                f"{name}image_to_text": self.over(lambda: retrieval(pairs())["top1_a_to_b"], weight_B),
                f"{name}text_to_image": self.over(lambda: retrieval(pairs())["top1_b_to_a"], weight_B),
            }

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: the images, and the cosines of their vectors (rows) with the texts'."""
        few = first(batch)
        was, _ = self.training, self.eval()
        image_BE, text_BE = self.global_proj(self._image_sides(few)[0]), self._words(few)[0].mean(1)
        self.train(was)
        return {"images": row_of_images(few["image"]), "similarity": matrices([[alike(image_BE, text_BE)]])}

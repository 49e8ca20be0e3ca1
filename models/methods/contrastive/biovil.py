"""BioViL: Making the Most of Text Semantics to Improve Biomedical Vision-Language Processing (Boecking et al., ECCV 2022).

First a text encoder alone: hidden words are predicted, and the findings and the impression of a report are to find each other. Then images
and reports are compared, with hidden words beside it. docs/methods/biovil.md says what was published and what was chosen.

Shape letters: B samples, R cells, L token places, N hidden places, D image width, E text width, C compared width.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Output, Record, Sample, Schema, Stage
from models.contract import options as _options
from models.encoders.image import ImageOptions
from models.encoders.resnet import ResNetOptions
from models.heads.masked_words import MaskedWords
from models.heads.projection import ProjectionHead
from models.layers.batch_norm import counted
from models.losses.contrastive import Pairs, all_pairs, chance, retrieval, symmetric
from models.methods._report import ReportOptions
from models.methods.contrastive._report import ReportPairMethod, ReportPairOptions
from models.parallel import global_mean
from models.pictures import alike, first, matrices, row_of_images
from models.registry import register
from models.transforms.patients import patient_number
from models.transforms.report_text import Unit, chosen, cleaned
from models.transforms.report_tokens import text_number
from models.transforms.text import draw_report_mask

EPS = 1e-12  # of the text head's norm, as in the published weights


class BiovilOptions(ReportPairOptions):
    published: ClassVar = {
        "normalise": "none",
        "compared": "rank",
        "same_text": "negative",
        "same_patient": "negative",
        "order": "shuffle",
    }

    image: ImageOptions = ResNetOptions(image_size=480)
    """The image encoder."""
    text_unit: Unit = "report"
    """A text is one sentence of the report, another one at every visit, or all of them."""
    text_stage: Literal["auto", "always", "never", "only"] = "auto"
    """First a stage of reports alone: where no text encoder is loaded (`text.init=file`), always, or never. `only`: nothing else, of
    data that may have no images; the run's weights are other systems' `text.init_file`."""
    shuffle_sentences: bool = True
    """In that stage the sentences of a section come in any order."""
    project: int = Bounded(128, ge=1)
    """Width of the compared vectors, and within both projection heads."""
    temperature: float = Bounded(0.5, gt=0)
    """Temperature of both comparisons, fixed."""
    masked_weight: float = Bounded(0.1, gt=0)
    """Weight of hidden words beside the comparisons."""
    mask_ratio: float = Bounded(0.15, gt=0, lt=1)
    """Probability of a word to be hidden, with all its pieces."""


@register("biovil")
class Biovil(ReportPairMethod):
    """`image`, `text`, `image_head` of cells, `text_head` of [CLS], `masked` for hidden words."""

    Options = BiovilOptions
    paper = (
        "Boecking et al., Making the Most of Text Semantics to Improve Biomedical Vision-Language Processing, ECCV 2022"
    )
    outline: ClassVar = {"text": "report", "pretrain": "image, report"}
    options: BiovilOptions

    def __init__(self, options: BiovilOptions, schema: Schema):
        super().__init__(options, schema)
        C, E = options.project, self.text.width
        self.image_head = ProjectionHead(self.image.width, C, C, 2, "batch", "none")
        self.text_head = nn.Sequential(nn.Linear(E, C), nn.GELU(), nn.LayerNorm(C, eps=EPS), nn.Linear(C, C))
        self.masked = MaskedWords(E, self.tokens.rows)
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        o = self.options
        alone = o.text_stage in ("always", "only") or (o.text_stage == "auto" and o.text.init == "scratch")
        text = (Stage("text", ("report",), o.order, compares=True, epochs=100),) if alone else ()
        if o.text_stage == "only":
            return text
        return (*text, Stage("pretrain", ("image", "report"), o.order, compares=True, epochs=30))

    @classmethod
    def reads(cls, options: ReportOptions) -> dict[str, str]:
        return {"report": "text"} if cls.unlearned(options) else super().reads(options)

    @classmethod
    def unlearned(cls, options: _options.Options) -> str:
        if getattr(options, "text_stage", "") != "only":
            return ""
        return (
            "its image encoder is as it began (method.text_stage=only): give its weights as method.text.init_file to the pre-training of a "
            "system that reads images and reports (docs/methods/biovil.md)"
        )

    def enter(self, stage: str) -> None:
        """`text`, `pretrain`, or "" for the deployed encoder: the whole image, no text."""
        super().enter(stage)
        if stage == "text":
            for name, p in self.named_parameters():
                p.requires_grad_(not name.startswith(("image.", "image_head.")))

    def chance(self, batch_size: int) -> dict[str, float]:
        """ln B of the comparison; ln of the words of the vocabulary."""
        term = "sections" if self.stage == "text" else "contrastive"
        return {term: math.log(max(2, batch_size)), "masked": math.log(self.tokens.rows)}

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """And in pre-training `hidden` [L], the places of hidden words; without an image, but with `findings`, `impression` [L] and
        `sections` (whether there are both) in the stage of reports alone."""
        if self.stage != "text":
            made = super().sample(record, rng)
            if self.stage:
                made.arrays["hidden"] = self._hide(made.arrays["report"], rng)
            return made
        report = record.read("report") if record.has("report") else ""
        L = self.options.report_length
        ids_L, count = self.tokens.encode(self.text_of(report, False, rng), L)
        parts = [self._shuffled(chosen(report, part), rng) for part in ("findings", "impression")]
        (findings_L, n), (impression_L, m) = (self.tokens.encode(p, L) for p in parts)
        arrays = {"report": ids_L, "words": np.array(count, np.int32), "hidden": self._hide(ids_L, rng)}
        arrays |= {"findings": findings_L, "impression": impression_L, "text": text_number(impression_L)}
        # One passage under a header of both names is no two sections.
        arrays["sections"] = np.array(n > 0 and m > 0 and not np.array_equal(findings_L, impression_L))
        return Sample({**arrays, "patient": patient_number(record.patient)}, {"report": count > 0})

    def _hide(self, ids_L: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        hidden_L = draw_report_mask(ids_L, self.tokens.continues_V, self.options.mask_ratio, "whole_word", rng)
        return hidden_L & (ids_L != self.tokens.sep)

    def _shuffled(self, section: str, rng: np.random.Generator) -> str:
        sentences = cleaned(section, self.options.clean)
        order = rng.permutation(len(sentences)) if self.options.shuffle_sentences else range(len(sentences))
        return " ".join(sentences[i] for i in order)

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        if self.stage == "text":
            weight_B = batch.weight_B * batch.present["report"] * batch["sections"]
            a_BC, b_BC = (self._text(batch[part]) for part in ("findings", "impression"))
            return self._output(batch, "sections", a_BC, b_BC, weight_B, {"text": a_BC.detach()})
        image_BC, pooled_BD = self._image(batch)
        text_BC = self._text(batch["report"])
        return self._output(batch, "contrastive", image_BC, text_BC, self.weight(batch), {"image": pooled_BD.detach()})

    def _output(
        self, batch: Batch, term: str, a_BC: Tensor, b_BC: Tensor, weight_B: Tensor, features: dict[str, Tensor]
    ) -> Output:
        """The comparison of a with b, and hidden words."""
        losses = {term: self.over(lambda: symmetric(self._pairs(a_BC, b_BC, weight_B, batch)), weight_B)}
        losses["masked"], right, count = self._masked(batch)
        total = losses[term] + self.options.masked_weight * losses["masked"]
        diagnostics, counts = self.report_diagnostics(batch)
        a, b = ("findings", "impression") if term == "sections" else ("image", "text")
        with torch.no_grad():
            found = retrieval(self._pairs(a_BC, b_BC, weight_B, batch))
            diagnostics |= {
                f"{a}_to_{b}": found["top1_a_to_b"],
                f"{b}_to_{a}": found["top1_b_to_a"],
                f"{term}_chance": self.over(lambda: chance(self._pairs(a_BC, b_BC, weight_B, batch)), weight_B),
                "masked_right": right,
            }
        if term == "sections":
            diagnostics["sections_both"] = global_mean(weight_B.sum(), batch.weight_B.sum())
        return Output(losses, total, diagnostics, features, counts | {"masked": count, "masked_right": count})

    def embed_images(self, batch: Batch) -> Tensor:
        return self._cells(self.image.tokens(self.tower_input(batch)), batch.weight_B).mean(1)

    def embed_texts(self, batch: Batch) -> Tensor:
        return self._text(batch["report"])

    def similarity_scale(self) -> float:
        return 1 / self.options.temperature

    def _image(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean of an image's projected cells [B, C], and its pooled vector [B, D]."""
        with counted(batch.weight_B * batch.present["image"]):
            tokens_BTD = self.image.tokens(self.tower_input(batch))
        cells_BRC = self._cells(tokens_BTD, self.weight(batch))
        return cells_BRC.mean(1), self.pooled(tokens_BTD)

    def _cells(self, tokens_BTD: Tensor, weight_B: Tensor) -> Tensor:
        cells_BRD = tokens_BTD[:, 1:] if self._by_class else tokens_BTD
        with counted(weight_B.repeat_interleave(cells_BRD.shape[1])):
            return self.image_head(cells_BRD.flatten(0, 1)).unflatten(0, cells_BRD.shape[:2])

    def _text(self, ids_BL: Tensor) -> Tensor:
        """[CLS] of a text, projected, [B, C]."""
        ids_BL = ids_BL.long()
        return self.text_head(self.text(ids_BL, ids_BL != self.tokens.pad)["hidden"][-1][:, 0])

    def _masked(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean of -log p over hidden words of all ranks, the share that is told right, and how many are hidden here."""
        ids_BL = batch["report"].long()
        at_BL = batch["hidden"] & ((batch.weight_B * batch.present["report"]) > 0)[:, None]
        given_BL = ids_BL.masked_fill(at_BL, self.tokens.mask)
        x_BLE = self.text(given_BL, ids_BL != self.tokens.pad)["hidden"][-1]
        logits_NV = self.masked(x_BLE[at_BL], self.text.words)
        wanted_N, count = ids_BL[at_BL], at_BL.sum()
        sum_ = F.cross_entropy(logits_NV, wanted_N, reduction="sum")
        right = (logits_NV.detach().argmax(1) == wanted_N).sum().float()
        return global_mean(sum_, count), global_mean(right, count), count

    def _pairs(self, a_BC: Tensor, b_BC: Tensor, weight_B: Tensor, batch: Batch) -> Pairs:
        o = self.options
        scale = a_BC.new_tensor(1 / o.temperature, dtype=torch.float32)
        return all_pairs(a_BC, b_BC, scale, weight_B, batch["patient"], o.same_patient, batch["text"], o.same_text)

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: the images, and the cosines of their compared vectors (rows) with the texts'; none of reports alone."""
        if "image" not in batch:
            return {}
        few = first(batch)
        was, _ = self.training, self.eval()
        values = alike(self._image(few)[0], self._text(few["report"]))
        self.train(was)
        return {"images": row_of_images(few["image"]), "similarity": matrices([[values]])}

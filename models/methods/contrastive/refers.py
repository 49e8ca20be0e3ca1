"""REFERS: generalized radiograph representation learning via cross-supervision (Zhou et al., Nature Machine Intelligence 2022).

Up to three images of a study go through one encoder and are fused; a decoder writes the report from them, and in a batch each study is to
find its report and each report its study. docs/methods/refers.md says what the published code does and what was chosen.

Shape letters: B samples, V views, T image tokens, P places, L token places, D image width, E text width.
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Group, Output, Record, Sample, Schema, Stage
from models.decoders.caption import CaptionDecoder, CaptionOptions
from models.encoders.image import ImageOptions
from models.encoders.vit import ViTOptions
from models.layers.batch_norm import counted
from models.layers.view_fusion import ViewFusion
from models.losses.contrastive import Pairs, all_pairs, chance, directed, retrieval
from models.methods.contrastive._report import ReportPairMethod, ReportPairOptions
from models.parallel import global_mean
from models.pictures import alike, first, matrices, row_of_images
from models.registry import register
from models.transforms.crops import picture_of
from models.transforms.patients import patient_number
from models.transforms.report_text import Cleaning, Unit
from models.transforms.report_tokens import text_number
from models.transforms.views import drawn_view

VIEWS = ("image", "image_2", "image_3")


class RefersOptions(ReportPairOptions):
    published: ClassVar = {
        "views": "drawn",
        "direction": "forward",
        "text_to_image_grad": False,
        "flip": "swap",
        "flip_views": "each",
        "keep_end": False,
        "unknown_words": "nothing",
        "compared": "rank",
        "same_text": "negative",
        "same_patient": "negative",
        "order": "shuffle",
    }

    image: ImageOptions = ViTOptions()
    """The image encoder."""
    clean: Cleaning = "none"
    """How a report is cut into sentences: as it stands, by GLoRIA's rule, or by that rule where it does no harm to numbers."""
    text_unit: Unit = "report"
    """A text is one sentence of the report, another one at every visit, or all of them."""
    report_length: int = Bounded(100, ge=3)
    """Tokens of a text with [CLS] and its end; longer ones are cut (and counted in the diagnostics)."""
    crop_scale: tuple[float, float] = (0.05, 1.0)
    """Least and largest share of the image's area in a random crop; its middle where no crop fits, as of long, narrow images."""
    brightness: float = Bounded(0.4, ge=0, le=1)
    """Change of brightness and of contrast by up to this share either way."""
    views: Literal["masked", "repeat", "drawn"] = "masked"
    """Of a study with fewer than three images: its images alone; its images in turn until there are three; or (as published) three draws
    with replacement, of any study."""
    flip_views: Literal["together", "each"] = "together"
    """With `flip`: all images of a study are mirrored or none, or each by itself while the words follow the first (as published)."""
    decoder: CaptionOptions = CaptionOptions()
    """The decoder that writes the report."""
    direction: Literal["both", "forward"] = "both"
    """Reports are written from both ends (the paper), or from the beginning alone (the published configuration)."""
    unknown_words: Literal["words", "nothing"] = "words"
    """For the decoder, [UNK] is a word like any other, or (as published, where padding has its id) neither seen nor scored."""
    keep_end: bool = True
    """A report that is cut keeps its end token for the decoder."""
    temperature: float = Bounded(0.1, gt=0)
    """Temperature of the comparison, fixed."""
    image_to_text: float = Bounded(0.75, ge=0, le=1)
    """Weight of image -> text; text -> image has the rest."""
    text_to_image_grad: bool = True
    """False: text -> image counts in the loss's value and not in its gradient (as published)."""
    report_weight: float = Bounded(1.0, ge=0)
    """Weight of writing the report, of each direction."""
    contrast_weight: float = Bounded(1.0, ge=0)
    """Weight of the comparison."""
    text_pooler: Literal["file", "new"] = "file"
    """With `text.init: file`: BERT's pooler from the file too, or a new one, which is learned (files of masked language models have none:
    CXR-BERT's, those of BioViL's stage of reports alone)."""
    text_lr: float = Bounded(0.1, gt=0)
    """Rate of the text encoder and its layer, by that of the rest."""


@register("refers")
class Refers(ReportPairMethod):
    """`image`, `fusion`, `decoder`; `text` and `text_fc` for the comparison. The image encoder is what is kept."""

    Options = RefersOptions
    paper = (
        "Zhou et al., Generalized Radiograph Representation Learning via Cross-supervision between Images and Free-text "
        "Radiology Reports, Nat. Mach. Intell. 2022"
    )
    pairs = "image (up to three of a study) + report"
    outline: ClassVar = {"pretrain": "image, report; image_2 and image_3 where there are any"}
    modalities: ClassVar = {**ReportPairMethod.modalities, "image": VIEWS}
    pooled_text = True
    options: RefersOptions

    def __init__(self, options: RefersOptions, schema: Schema):
        super().__init__(options, schema)
        o, D = options, self.image.width
        self.fusion = ViewFusion(D, len(VIEWS))
        self.decoder = CaptionDecoder(self.tokens.rows, o.report_length, D, o.decoder, o.direction == "both")
        self.text_fc = nn.Linear(self.text.width, len(VIEWS) * D)
        self.enter("")

    @classmethod
    def new_pooler(cls, options: ReportPairOptions) -> bool:
        assert isinstance(options, RefersOptions)
        return options.text_pooler == "new"

    def stages(self) -> tuple[Stage, ...]:
        optional = VIEWS[1:]
        return (Stage("pretrain", ("image", "report"), self.options.order, None, True, epochs=100, optional=optional),)

    def param_groups(self) -> list[Group]:
        """Those of all methods, each parted by whose rate it has."""
        slow = {id(p) for n, p in self.named_parameters() if n.startswith(("text.", "text_fc."))}
        parted = []
        for g in super().param_groups():
            for name, mine, scale in ((g.name, False, 1.0), (f"{g.name}_text", True, self.options.text_lr)):
                params = [p for p in g.params if (id(p) in slow) == mine]
                parted += [Group(name, params, g.lr_scale * scale, g.decay_scale)] if params else []
        return parted

    def chance(self, batch_size: int) -> dict[str, float]:
        """ln B of the comparison; ln of the words of the vocabulary."""
        word = math.log(self.tokens.rows)
        written = ("forward", "backward") if self.options.direction == "both" else ("forward",)
        return {"contrastive": math.log(max(2, batch_size))} | dict.fromkeys(written, word)

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """As all image-report methods'; in pre-training `image`, `image_2`, `image_3`, each [H, W, 3], with a presence mask each, and
        `written` (ids [L] for the decoder) with `written_length`."""
        if not self.stage:
            return super().sample(record, rng)
        o = self.options
        mirrored_V = rng.random(len(VIEWS)) < (0.5 if o.flip else 0.0)
        if o.flip_views == "together":
            mirrored_V[:] = mirrored_V[0]
        slots = self._slots([n for n in VIEWS if record.has(n)], rng)
        arrays: dict[str, np.ndarray] = {}
        for view, name, mirrored in zip(VIEWS, slots, mirrored_V, strict=True):
            arrays[view] = self._view(record, name, bool(mirrored), rng)
        present = {view: name is not None for view, name in zip(VIEWS, slots, strict=True)}
        text = self.text_of(record.read("report"), bool(mirrored_V[0]), rng) if record.has("report") else ""
        ids_L, count = self.tokens.encode(text, o.report_length)
        present["report"] = count > 0
        # One place more than there is room for: the end token of a text that is cut falls off behind.
        written_L = ids_L if o.keep_end else self.tokens.encode(text, o.report_length + 1)[0][:-1]
        arrays |= {
            "report": ids_L,
            "text": text_number(ids_L),
            "words": np.array(count, np.int32),
            "written": written_L,
        }
        arrays["written_length"] = np.array((written_L != self.tokens.pad).sum(), np.int32)
        return Sample({**arrays, "patient": patient_number(record.patient)}, present)

    def _slots(self, there: list[str], rng: np.random.Generator) -> list[str | None]:
        """Which image is taken for each of the three views; None for none."""
        if not there:
            return [None] * len(VIEWS)
        if self.options.views == "drawn":
            return [there[i] for i in rng.integers(len(there), size=len(VIEWS))]
        if self.options.views == "repeat":
            return [there[i % len(there)] for i in range(len(VIEWS))]
        return [name if name in there else None for name in VIEWS]

    def _view(self, record: Record, name: str | None, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
        """A random crop of an image, uint8 [H, W, 3]; zeros for none."""
        if name is None:
            return np.zeros((self.side, self.side, 3), np.uint8)
        picture = picture_of(record, name, grayscale=False)
        view_HWC = np.asarray(drawn_view(picture, self.side, self.rule, rng))
        return np.ascontiguousarray(view_HWC[:, ::-1]) if mirrored else view_HWC

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch)
        tokens_BVTD, there_BV = self._views(batch)
        study_BC, pooled_BD = self._study(tokens_BVTD, there_BV)
        text_BC = self._text(batch)
        losses = {"contrastive": self.over(lambda: self._contrast(self._pairs(study_BC, text_BC, batch)), weight_B)}
        found, count = self._written(tokens_BVTD, there_BV, batch)
        losses |= {name: self.over(partial(global_mean, s, count), weight_B) for name, s in found.items()}
        weights = {"contrastive": o.contrast_weight}
        total = torch.stack([weights.get(n, o.report_weight) * v for n, v in losses.items()]).sum()
        diagnostics, counts = self.report_diagnostics(batch)
        with torch.no_grad():
            pairs = self._pairs(study_BC, text_BC, batch)
            right = retrieval(pairs)
            diagnostics |= {
                "image_to_text": right["top1_a_to_b"],
                "text_to_image": right["top1_b_to_a"],
                "contrastive_chance": self.over(lambda: chance(self._pairs(study_BC, text_BC, batch)), weight_B),
                "views": global_mean((there_BV.sum(1) * batch.weight_B).sum(), batch.weight_B.sum()),
            }
        counts |= dict.fromkeys(found, count)
        return Output(losses, total, diagnostics, {"image": pooled_BD.detach()}, counts)

    def embed_images(self, batch: Batch) -> Tensor:
        """Of a study's first image, which stands for the views that a deployed sample does not have, as in pre-training."""
        pooled_BD = self.pooled(self.image.tokens(self.tower_input(batch)))
        return pooled_BD.repeat(1, len(VIEWS))

    def embed_texts(self, batch: Batch) -> Tensor:
        return self._text(batch)

    def similarity_scale(self) -> float:
        return 1 / self.options.temperature

    def joint_problem(self) -> str:
        if self.options.contrast_weight:
            return ""
        return "studies and reports were never compared in its training (method.contrast_weight: 0); give a run with a weight above 0"

    def weight(self, batch: Batch) -> Tensor:
        """1 for a study that counts and has any image and a report, [B]."""
        return batch.weight_B * self._there(batch).any(1) * batch.present["report"]

    def _there(self, batch: Batch) -> Tensor:
        return torch.stack([batch.present[n] for n in VIEWS], 1)

    def _views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens of all views, [B, V, T, D], and which are there, [B, V]."""
        there_BV = self._there(batch)
        x_NCHW = torch.cat([self.tower_input(Batch({"image": batch[n]}, {})) for n in VIEWS])
        with counted((batch.weight_B[:, None] * there_BV).T.flatten()):
            tokens_NTD = self.image.tokens(x_NCHW)
        return tokens_NTD.unflatten(0, (len(VIEWS), -1)).transpose(0, 1), there_BV

    def _study(self, tokens_BVTD: Tensor, there_BV: Tensor) -> tuple[Tensor, Tensor]:
        """The study's vector [B, V * D]: the pooled vectors of its views side by side, the mean of those it has for one it lacks; and
        what stands for its first view, [B, D]."""
        pooled_BVD = self.pooled(tokens_BVTD.flatten(0, 1)).unflatten(0, tokens_BVTD.shape[:2])
        there_BV1 = there_BV[..., None].to(pooled_BVD.dtype)
        mean_B1D = (pooled_BVD * there_BV1).sum(1, keepdim=True) / there_BV1.sum(1, keepdim=True).clamp_min(1)
        filled_BVD = torch.where(there_BV[..., None], pooled_BVD, mean_B1D)
        return filled_BVD.flatten(1), filled_BVD[:, 0]

    def _text(self, batch: Batch) -> Tensor:
        """A report's vector, [B, V * D]."""
        ids_BL = batch["report"].long()
        pooled_BE = self.text(ids_BL, ids_BL != self.tokens.pad)["pooled"]
        return self.text_fc(pooled_BE)

    def _pairs(self, study_BC: Tensor, text_BC: Tensor, batch: Batch) -> Pairs:
        o = self.options
        scale = study_BC.new_tensor(1 / o.temperature, dtype=torch.float32)
        weight_B = self.weight(batch)
        return all_pairs(
            study_BC, text_BC, scale, weight_B, batch["patient"], o.same_patient, batch["text"], o.same_text
        )

    def _contrast(self, pairs: Pairs) -> Tensor:
        o = self.options
        if o.text_to_image_grad:
            return directed(pairs, o.image_to_text)
        a = o.image_to_text
        return a * directed(pairs, 1.0) + (1 - a) * directed(pairs, 0.0).detach()

    def _written(self, tokens_BVTD: Tensor, there_BV: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """{direction: sum over this rank's words of -log p}, and how many words are scored."""
        fused_BMD, there_BM = self._fused(tokens_BVTD, there_BV)
        ids_BL = batch["written"].long()
        if self.options.unknown_words == "nothing":
            ids_BL = ids_BL.masked_fill(ids_BL == self.tokens.unk, self.tokens.pad)
        nll = self.decoder(fused_BMD, there_BM, ids_BL, batch["written_length"].long())
        weight_B1 = self.weight(batch)[:, None]
        # Both directions score a report's words; the first token of each is given, so it is not among them.
        count = ((ids_BL[:, 1:] != self.tokens.pad) * weight_B1).sum()
        return {name: (x_BL * weight_B1).sum() for name, x_BL in nll.items()}, count

    def _fused(self, tokens_BVTD: Tensor, there_BV: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder sees: each view's places with its class token added, weighed; [B, V * P, D], and which are there."""
        places_BVPD = tokens_BVTD[:, :, 1:] + tokens_BVTD[:, :, :1] if self._by_class else tokens_BVTD
        there_BM = there_BV.repeat_interleave(places_BVPD.shape[2], 1)
        # A study without any image has no key to look at, which a softmax cannot have; it weighs nothing.
        return self.fusion(places_BVPD, there_BV), there_BM | ~there_BV.any(1, keepdim=True)

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: the first images, and the cosines of their studies' vectors (rows) with the reports'."""
        few = first(batch)
        was, _ = self.training, self.eval()
        study_BC, _ = self._study(*self._views(few))
        text_BC = self._text(few)
        self.train(was)
        return {"images": row_of_images(few["image"]), "similarity": matrices([[alike(study_BC, text_BC)]])}

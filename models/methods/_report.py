"""What systems share that learn from images with reports: options, what is read of a report, views, the deployed image encoder.

Shape letters: B samples, H x W pixels, L token places, T image tokens, D image width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from pydantic import model_validator
from torch import Tensor

from models.contract import Batch, Encoded, Method, MethodError, Options, Record, Sample, Schema
from models.contract.image_encoder import ImageEncoder
from models.contract.image_view import ImageView
from models.encoders.image import ImageOptions
from models.encoders.resnet import ResNetOptions
from models.layers.batch_norm import counted
from models.methods._image import field_problems
from models.methods._published import with_published
from models.parallel import global_mean
from models.transforms.crops import centre_view, picture_of
from models.transforms.image import FILMS, MEAN, STD
from models.transforms.report_text import Cleaning, Sections, Unit, chosen, cleaned, drawn_text, swapped_sides
from models.transforms.report_tokens import tokens_of
from models.transforms.text import same_tokenizer
from models.transforms.views import ViewRule, drawn_view

HALF = (0.5,) * 3
Normalise = Literal["imagenet", "film", "half", "none"]


class ReportOptions(Options):
    """Options of a system that learns from images and reports."""

    published: ClassVar[Mapping[str, Any]] = {}
    """What `conventions: published` means, by key."""

    conventions: Literal["recommended", "published"] = "recommended"
    """`published` sets what the published code does where we recommend otherwise (docs); a key that contradicts it is refused."""
    image: ImageOptions = ResNetOptions()
    """The image encoder."""
    tokenizer: str | None = None
    """WordPiece vocabulary of the reports: a file of `python -m shards tokenizer`, or the vocab.txt of the BERT that `text.init_file`
    holds; null takes the one stored with the data set."""
    cased: bool = False
    """Of a BERT's vocab.txt: its words keep capitals and accents. (`clean: gloria` and `safe` lower all letters.)"""
    report_length: int = Bounded(112, ge=3)
    """Tokens of a text with [CLS] and its end; longer ones are cut (and counted in the diagnostics)."""
    sections: Sections = "whole"
    """Part of a report, by its headers. A report without that part has no text, and takes part in no term that reads one."""
    clean: Cleaning = "safe"
    """How a report is cut into sentences: as it stands, by GLoRIA's rule, or by that rule where it does no harm to numbers."""
    text_unit: Unit = "sentence"
    """A text is one sentence of the report, another one at every visit, or all of them."""
    min_words: int = Bounded(1, ge=1)
    """Reports of fewer words have no text."""
    crop_scale: tuple[float, float] = (0.6, 1.0)
    """Least and largest share of the image's area in a random crop; its middle where no crop fits, as of long, narrow images."""
    rotate: float = Bounded(0.0, ge=0, le=180)
    """Rotation by up to so many degrees either way."""
    brightness: float = Bounded(0.0, ge=0, le=1)
    """Change of brightness and of contrast by up to this share either way."""
    blur: float = Bounded(0.0, ge=0, le=1)
    """Share of images that are blurred (Gaussian, deviation 0.1 to 3 pixels)."""
    flip: bool | Literal["swap"] = False
    """Mirror half of the images: not at all, since reports name sides; with left and right exchanged in their texts; or as published."""
    normalise: Normalise = "imagenet"
    """Pixels with the mean and deviation of ImageNet or of radiographs taken out, from -1 to 1, or from 0 to 1."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: object) -> object:
        return with_published(cls.published, given)

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            yield f"{where}.crop_scale: {self.crop_scale} is no range within (0, 1]"


class ReportMethod(Method):
    """Base of systems whose stage `pretrain` reads images and their reports; the image encoder is what is kept.

    A report without words is a missing modality: it is in no statistic and no term that reads it (`report_empty` counts them).
    """

    pairs = "image + report"
    outline: ClassVar = {"pretrain": "image, report"}
    inputs = ("image",)
    by_class: ClassVar[bool] = True
    """Pooled is the class token, where there is one; else the mean of the places."""
    ends: ClassVar[int] = 2
    """Tokens of a text beside its words: [CLS] and its end; or none."""
    options: ReportOptions

    def __init__(self, options: ReportOptions, schema: Schema):
        super().__init__(options, schema)
        if problems := list(field_problems(schema, self.name, self.reads(options))):
            raise MethodError(problems)
        o = self.options
        self.tokens = self.tokenizer = tokens_of(schema, "report", o.tokenizer, o.cased)
        self.image: Any = o.image.build()
        self.rule = ViewRule(
            o.crop_scale,
            rotate=o.rotate,
            flip=0.0,
            jitter=(o.brightness, o.brightness, 0.0, 0.0),
            jitter_p=1.0,
            blur_p=o.blur,
            sigma=(0.1, 3.0),
        )
        # Rows of the word table mean nothing under another vocabulary, so the weights carry its hash.
        digest = np.frombuffer(bytes.fromhex(self.tokens.sha256), np.uint8)
        self.register_buffer("tokenizer_sha256", torch.from_numpy(digest.copy()))
        self.register_load_state_dict_pre_hook(same_tokenizer)

    @classmethod
    def reads(cls, options: ReportOptions) -> dict[str, str]:
        """The fields that a data set must have, {field: kind}."""
        return {"image": "image", "report": "text"}

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: the whole image, no text."""
        super().enter(stage)
        for name, p in self.named_parameters():
            p.requires_grad_(stage == "pretrain" or name.startswith("image."))

    def no_weight_decay(self) -> Iterable[str]:
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in ("pos_embed", "cls_token")]

    # ----------------------------------------------------------------------------------------------------------- data

    @property
    def side(self) -> int:
        """Pixels of a side of the images that `sample` makes."""
        return self.options.image.image_size

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """`image` [H, W, 3]; in pre-training `report` (ids [L]), and `words` (tokens of the whole text)."""
        present = {"image": record.has("image")}
        image_HWC = np.zeros((self.side, self.side, 3), np.uint8)
        mirrored = bool(self.stage and self.options.flip) and rng.random() < 0.5
        if present["image"]:
            picture = picture_of(record, "image", grayscale=False)
            if self.stage:
                image_HWC = np.asarray(drawn_view(picture, self.side, self.rule, rng))
                image_HWC = np.ascontiguousarray(image_HWC[:, ::-1]) if mirrored else image_HWC
            else:
                image_HWC = centre_view(picture, self.side)
        if not self.stage:
            return Sample({"image": image_HWC}, present)
        text = self.text_of(record.read("report"), mirrored, rng) if record.has("report") else ""
        ids_L, count = self.ids_of(text)
        present["report"] = count > 0
        return Sample({"image": image_HWC, "report": ids_L, "words": np.array(count, np.int32)}, present)

    def ids_of(self, text: str) -> tuple[np.ndarray, int]:
        """Ids [L] of a text, and how many tokens all of it has."""
        encoded = self.tokens.encode if self.ends else self.tokens.plain
        return encoded(text, self.options.report_length)

    def text_of(self, report: str, mirrored: bool, rng: np.random.Generator) -> str:
        """What this visit reads of a report."""
        o = self.options
        sentences = cleaned(chosen(report, o.sections), o.clean)
        if sum(len(s.split()) for s in sentences) < o.min_words:
            sentences = []
        text = drawn_text(sentences, o.text_unit, rng)
        return swapped_sides(text) if mirrored and o.flip == "swap" else text

    def untold(self, record: Record) -> str:
        o = self.options
        if not (text := record.read("report")).strip():
            return "a report that is not empty; pack the texts of reports into field 'report'"
        part = chosen(text, o.sections)
        if not part:
            return f"a report with the header that method.sections={o.sections} looks for; give method.sections=whole"
        sentences = cleaned(part, o.clean)
        if sum(len(s.split()) for s in sentences) < o.min_words:
            return f"a report of method.min_words={o.min_words} words after method.clean={o.clean}; give method.min_words=1"
        ids_L, _ = self.ids_of(" ".join(sentences))
        words = int((~np.isin(ids_L, (self.tokens.pad, self.tokens.cls, self.tokens.sep))).sum())
        if 2 * int((ids_L == self.tokens.unk).sum()) > words:
            return "a report of which the vocabulary knows half of the words; give method.tokenizer=null, or that of these reports"
        return ""

    # -------------------------------------------------------------------------------------------------------- forward

    def pixels(self, image_BHWC: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> [B, 3, H, W] as the encoder takes it."""
        mean, std = (torch.tensor(c, device=image_BHWC.device).view(3, 1, 1) for c in self._colours())
        return ((image_BHWC.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(self.dtype)

    def _colours(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return {"imagenet": (MEAN, STD), "film": FILMS, "half": (HALF, HALF), "none": ((0.0,) * 3, (1.0,) * 3)}[
            self.options.normalise
        ]

    def weight(self, batch: Batch) -> Tensor:
        """1 for a sample that counts and has both, [B]."""
        return batch.weight_B * batch.present["image"] * batch.present["report"]

    @torch.no_grad()
    def report_diagnostics(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Shares of unknown tokens, of texts that are cut, of samples without a text; and of how many each is."""
        ids_BL, weight_B = batch["report"], batch.weight_B * batch.present["report"]
        words_BL = (ids_BL != self.tokens.pad) & (ids_BL != self.tokens.cls) & (ids_BL != self.tokens.sep)
        shares = {
            "report_unknown": (ids_BL == self.tokens.unk, words_BL * weight_B[:, None]),
            "report_cut": (batch["words"] > self.options.report_length - self.ends, weight_B),
            "report_empty": (~batch.present["report"], batch.weight_B),
        }
        counts = {name: of.sum() for name, (_, of) in shares.items()}
        return {name: global_mean((yes * of).sum(), counts[name]) for name, (yes, of) in shares.items()}, counts

    # --------------------------------------------------------------------------------------------------------- encode

    def pooled(self, tokens_BTD: Tensor) -> Tensor:
        return tokens_BTD[:, 0] if self._by_class else tokens_BTD[:, self._extra :].mean(1)

    @property
    def _by_class(self) -> bool:
        return self.by_class and bool(self._extra)

    @property
    def _extra(self) -> int:
        """Class tokens of the encoder."""
        return int(getattr(self.image, "extra", 0))

    def image_encoder(self) -> ImageEncoder:
        assert isinstance(self.image, ImageEncoder)
        return self.image

    def tower_input(self, batch: Batch) -> Tensor:
        return self.pixels(batch["image"])

    def image_view(self) -> ImageView | None:
        mean, std = self._colours()
        pool, words = ("token", "the class token") if self._by_class else ("avg", "mean of the places")
        return ImageView(self.side, "rgb", "crop", "bicubic", mean, std, pool, words)  # type: ignore[arg-type]

    def encode(self, batch: Batch) -> Encoded:
        """Tokens of the image encoder, without the head."""
        with counted(batch.weight_B * batch.present["image"]):
            tokens_BTD, maps = self.image.tokens_and_maps(self.tower_input(batch))
        present_B1 = batch.present["image"][:, None]
        mask_BT = present_B1.expand(tokens_BTD.shape[:2])
        return Encoded(
            tokens_BTD, mask_BT, self.pooled(tokens_BTD) * present_B1, maps, {"image": (tokens_BTD, mask_BT)}
        )

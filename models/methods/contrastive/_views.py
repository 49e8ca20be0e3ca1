"""What systems share that learn from random views of an image: options, drawing, pixels, and the deployed encoder.

Shape letters: B samples, V views, N = V x B, C channels, H x W pixels, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Method, MethodError, Options, Record, Sample, Schema
from models.contract.image_view import ImageView
from models.encoders.image import ImageOptions
from models.encoders.vit import ViTOptions
from models.layers.batch_norm import counted
from models.losses.contrastive import SamePatient
from models.transforms.crops import centre_view, colours, eight_bit
from models.transforms.image import MEAN, STD, normalised
from models.transforms.patients import patient_number
from models.transforms.views import Kind, Views


class ViewedOptions(Options):
    """Options of a system that compares views of an image."""

    image: ImageOptions = ViTOptions()
    """The image encoder."""
    views: Literal["mild", "paper", "official"] = "mild"
    """How views are drawn: with little change of colour, for images whose hue and detail carry the finding; turned and mirrored alone, as
    the comparing paper (Yang et al. 2023) states for all systems; or as the system's own code does."""
    strength: float = Bounded(1.0, ge=0, le=10)
    """Factor of the views' colour jitter."""
    crop_scale: tuple[float, float] | None = None
    """Share of the image's area that a view is cut from; none given: as `views` has it."""
    blur: bool = True
    """False: no view is blurred (small images)."""
    normalise: Literal["imagenet", "unit"] = "imagenet"
    """Pixels with ImageNet's mean and deviation taken out, or in [0, 1]."""
    freeze_patch: bool = False
    """The patch embedding of a vision transformer stays at its random start in pre-training (Chen et al. 2021, section 4.2)."""
    order: Literal["patient_unique", "shuffle"] = "patient_unique"
    """Batches with at most one image of a patient, or of any images."""
    same_patient: SamePatient = "ignore"
    """Other images of one patient in a batch: left out, each other's positives too, or (as published) negatives."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            yield f"{where}.crop_scale: {self.crop_scale} is no range within (0, 1]"
        if self.freeze_patch and self.image.kind != "vit":
            yield f"{where}.freeze_patch: {where}.image.kind={self.image.kind} has no patch embedding; take it out"


class ViewedMethod(Method):
    """Base of systems whose one stage `pretrain` compares views of an image. Pooled: the class token where there is one, else the mean.

    An image that is absent is a missing modality: it takes part in no statistic and no pair, and its pooled vector is zero.
    """

    official: ClassVar[Kind]
    """What `views: official` means."""
    pairs = "image"
    outline: ClassVar = {"pretrain": "image"}
    inputs = ("image",)
    options: ViewedOptions

    def __init__(self, options: Any, schema: Schema):
        super().__init__(options, schema)
        if problems := list(image_problems(schema, self.name)):
            raise MethodError(problems)
        o = self.options
        self.image: Any = o.image.build()
        kind: Kind = self.official if o.views == "official" else o.views
        self.drawn = Views(kind, o.image.image_size, strength=o.strength, scale=o.crop_scale, blur=o.blur)

    def frozen(self, head_norm: bool) -> tuple[str, ...]:
        """Beginnings of the encoder's parameters that pre-training leaves as they are.

        Args:
            head_norm: whether a batch norm follows the head's first linear layer.
        """
        names = ("image.patch_embed.",) if self.options.freeze_patch else ()
        # A batch norm takes out what a transformer's last bias adds: its gradient is rounding alone, which Adam would make steps of.
        return (*names, "image.norm.bias") if head_norm and self.options.image.kind == "vit" else names

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """`views` [V, H, W, 3] in pre-training, else `image` [H, W, 3]; and the patient as a number."""
        present = record.has("image")
        arrays: dict[str, np.ndarray] = {"patient": patient_number(record.patient)}
        if self.stage:
            arrays |= self.drawn.draw(record.read("image"), rng) if present else self.drawn.absent()
        else:
            size = self.options.image.image_size
            arrays["image"] = np.zeros((size, size, 3), np.uint8)
            if present:
                arrays["image"] = centre_view(colours(eight_bit(record.read("image")), grayscale=False), size)
        return Sample(arrays, {"image": present})

    def pixels(self, image_NHWC: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> [N, 3, H, W] as the encoder takes it."""
        if self.options.normalise == "unit":
            return (image_NHWC.permute(0, 3, 1, 2).float() / 255).to(self.dtype)
        return normalised(image_NHWC).to(self.dtype)

    def stacked(self, batch: Batch) -> Tensor:
        """Pixels of all first views, then of all second ones, [N, 3, H, W]."""
        return self.pixels(batch["views"].transpose(0, 1).flatten(0, 1))

    def weight(self, batch: Batch) -> Tensor:
        """1 for a sample that counts and has an image, [B]."""
        return batch.weight_B * batch.present["image"]

    def pooled(self, tokens_NLD: Tensor) -> Tensor:
        return tokens_NLD[:, 0] if self._by_class else tokens_NLD.mean(1)

    @property
    def _by_class(self) -> bool:
        return bool(getattr(self.image, "extra", 0))

    def tower(self) -> nn.Module:
        return self.image

    def tower_input(self, batch: Batch) -> Tensor:
        return self.pixels(batch["image"])

    def image_view(self) -> ImageView:
        o = self.options
        mean, std = (MEAN, STD) if o.normalise == "imagenet" else ((0.0,) * 3, (1.0,) * 3)
        size = o.image.image_size
        if self._by_class:
            return ImageView(size, "rgb", "crop", "bicubic", mean, std, "token", "the class token")
        return ImageView(size, "rgb", "crop", "bicubic", mean, std, "avg", "mean of the patch tokens")

    def encode(self, batch: Batch) -> Encoded:
        """Tokens of the encoder, without the head."""
        with counted(self.weight(batch)):
            tokens_BLD = self.image.tokens(self.tower_input(batch))
        present_B1 = batch.present["image"][:, None]
        return Encoded(tokens_BLD, present_B1.expand(tokens_BLD.shape[:2]), self.pooled(tokens_BLD) * present_B1)

    def no_weight_decay(self) -> Iterable[str]:
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in ("pos_embed", "cls_token")]


def image_problems(schema: Schema, method: str) -> Iterable[str]:
    """What is wrong with the field `image`."""
    known = schema.fields.get("image")
    if known is None:
        has = ", ".join(sorted(schema.fields)) or "none"
        yield f"{schema.source} has no field 'image', which {method} reads (it has: {has})"
    elif known.kind != "image":
        yield f"field 'image' of {schema.source} is {known.kind}, not image; pack it as an image"


def stacked_weight(weight_B: Tensor, views: int = 2) -> Tensor:
    """Weights of all views, in the order of `stacked`."""
    return weight_B.repeat(views)


def halves(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """First and second views of a stack of two."""
    first, second = torch.tensor_split(x_ND, 2)
    return first, second

"""What systems share that compare random views of an image: options, drawing and stacking.

Shape letters: B samples, V views, N = V x B, C channels, H x W pixels, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, Record, Sample, Schema
from models.encoders.image import ImageOptions
from models.encoders.vit import ViTOptions
from models.losses.contrastive import SamePatient
from models.methods._image import ImageMethod, ImageMethodOptions
from models.transforms.patients import patient_number
from models.transforms.views import Kind, Views


class ViewedOptions(ImageMethodOptions):
    """Options of a system that compares views of an image."""

    image: ImageOptions = ViTOptions()
    """The image encoder."""
    strength: float = Bounded(1.0, ge=0, le=10)
    """Factor of the views' colour jitter."""
    blur: bool = True
    """False: no view is blurred (small images)."""
    normalise: Literal["imagenet", "unit"] = "imagenet"
    """Pixels with ImageNet's mean and deviation taken out, or in [0, 1]."""
    freeze_patch: bool = False
    """The patch embedding of a vision transformer stays at its random start in pre-training (Chen et al. 2021, section 4.2)."""
    order: Literal["patient_unique", "shuffle"] = "patient_unique"
    """Batches with at most one image of a patient, or of any images."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.freeze_patch and self.image.kind != "vit":
            yield f"{where}.freeze_patch: {where}.image.kind={self.image.kind} has no patch embedding; take it out"


class PairedOptions(ViewedOptions):
    """Of a system that compares the images of a batch with each other."""

    same_patient: SamePatient = "ignore"
    """Other images of one patient in a batch: left out, each other's positives too, or (as published) negatives."""


class ViewedMethod(ImageMethod):
    """Base of systems whose one stage `pretrain` compares views of an image. Pooled: the class token where there is one."""

    official: ClassVar[Kind]
    """What `views: official` means."""
    count: ClassVar[int] = 2
    """Views of an image."""
    by_class = True
    options: ViewedOptions

    def __init__(self, options: ViewedOptions, schema: Schema):
        super().__init__(options, schema)
        o = self.options
        kind: Kind = self.official if o.views == "official" else o.views
        adjusted: dict[str, Any] = {"strength": o.strength, "scale": o.crop_scale, "blur": o.blur}
        self.drawn = Views(kind, o.image.image_size, count=self.count, **adjusted)

    def frozen(self, head_norm: bool) -> tuple[str, ...]:
        """Beginnings of the encoder's parameters that pre-training leaves as they are.

        Args:
            head_norm: whether a batch norm follows the head's first linear layer.
        """
        names = ("image.patch_embed.",) if self.options.freeze_patch else ()
        # A batch norm takes out what a transformer's last bias adds: its gradient is rounding alone, which Adam would make steps of.
        return (*names, "image.norm.bias") if head_norm and self.options.image.kind == "vit" else names

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """As every image method's; and the patient as a number."""
        made = super().sample(record, rng)
        made.arrays["patient"] = patient_number(record.patient)
        return made

    def pixels(self, image_NHWC: Tensor) -> Tensor:
        if self.options.normalise == "unit":
            return image_NHWC.permute(0, 3, 1, 2).float() / 255
        return super().pixels(image_NHWC)

    def statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        return super().statistics() if self.options.normalise == "imagenet" else ((0.0,) * 3, (1.0,) * 3)

    def stacked(self, batch: Batch) -> Tensor:
        """Pixels of all first views, then of all second ones, [N, 3, H, W]."""
        return self.pixels(batch["views"].transpose(0, 1).flatten(0, 1)).to(self.dtype)

    def no_weight_decay(self) -> Iterable[str]:
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in ("pos_embed", "cls_token")]


def stacked_weight(weight_B: Tensor, views: int = 2) -> Tensor:
    """Weights of all views, in the order of `stacked`."""
    return weight_B.repeat(views)


def halves(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """First and second views of a stack of two."""
    first, second = torch.tensor_split(x_ND, 2)
    return first, second

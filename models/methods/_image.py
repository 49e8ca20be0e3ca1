"""What systems share whose one input is `image`: options, the deployed form of an image, and the deployed encoder.

Shape letters: B samples, N images, C channels, H x W pixels, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from models.contract import Batch, Encoded, Method, MethodError, Options, Record, Sample, Schema
from models.contract.image_encoder import ImageEncoder
from models.contract.image_view import ImageView
from models.encoders.image import ImageOptions
from models.layers.batch_norm import counted
from models.transforms.crops import centre_view, picture_of
from models.transforms.image import MEAN, STD, normalised
from models.transforms.views import Views


class ImageMethodOptions(Options):
    """Base of their options; a subclass adds `image`, the encoder's."""

    views: Literal["mild", "paper", "official"] = "mild"
    """How an image is changed in pre-training: little, and not in its hue, for images where hue and detail carry the finding; turned and
    mirrored alone, as the comparing paper (Yang et al. 2023) states for all systems; or as the system's own code does."""
    crop_scale: tuple[float, float] | None = None
    """Share of the image's area that is cut out in pre-training; none given: as `views` has it."""

    if TYPE_CHECKING:
        # Each system has its own default for it: a field here would need one too, and would lead every table of options.
        @property
        def image(self) -> ImageOptions: ...

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            yield f"{where}.crop_scale: {self.crop_scale} is no range within (0, 1]"


class ImageMethod(Method):
    """Base of systems with one stage, `pretrain`, on the field `image`; the encoder is `image`.

    An image that is absent is a missing modality: it takes part in no statistic and no loss, and its pooled vector is zero.
    """

    pairs = "image"
    outline: ClassVar = {"pretrain": "image"}
    inputs = ("image",)
    by_class: ClassVar[bool]
    """Pooled is the class token, where there is one; else the mean of the patch tokens."""
    options: ImageMethodOptions
    drawn: Views
    """What draws its views in pre-training."""
    grey: bool = False
    """The encoder learned from luma: deployed it sees an image's luma too, repeated."""

    def __init__(self, options: ImageMethodOptions, schema: Schema):
        super().__init__(options, schema)
        if problems := list(field_problems(schema, self.name, {"image": "image"})):
            raise MethodError(problems)
        self.image: Any = self.built()

    def built(self) -> ImageEncoder:
        """The image encoder, with its first weights."""
        return self.options.image.build()

    @property
    def _size(self) -> int:
        return int(self.options.image.image_size)

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """`views` [V, H, W, 3] in pre-training, else `image` [H, W, 3]."""
        present = record.has("image")
        if self.stage:
            drawn = self.drawn
            arrays = drawn.draw(picture_of(record, "image", drawn.channels == 1), rng) if present else drawn.absent()
        else:
            arrays = {"image": np.zeros((self._size, self._size, 3), np.uint8)}
            if present:
                arrays["image"][:] = centre_view(picture_of(record, "image", self.grey), self._size)
        return Sample(arrays, {"image": present})

    def pixels(self, image_NHWC: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] as the encoder takes it, ImageNet's mean and deviation taken out."""
        return normalised(image_NHWC)

    def weight(self, batch: Batch) -> Tensor:
        """1 for a sample that counts and has an image, [B]."""
        return batch.weight_B * batch.present["image"]

    @property
    def _extra(self) -> int:
        """Class tokens of the encoder."""
        return int(getattr(self.image, "extra", 0))

    def pooled(self, tokens_NLD: Tensor) -> Tensor:
        return tokens_NLD[:, 0] if self.by_class and self._extra else tokens_NLD[:, self._extra :].mean(1)

    def image_encoder(self) -> ImageEncoder:
        assert isinstance(self.image, ImageEncoder)
        return self.image

    def image_view(self) -> ImageView:
        mean, std = self.statistics()
        channels: Literal["rgb", "grey"] = "grey" if self.grey else "rgb"
        if self.by_class and self._extra:
            return ImageView(self._size, channels, "crop", "bicubic", mean, std, "token", "the class token")
        return ImageView(self._size, channels, "crop", "bicubic", mean, std, "avg", "mean of the patch tokens")

    def statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and deviation that `pixels` takes out."""
        return MEAN, STD

    def encode(self, batch: Batch) -> Encoded:
        """Tokens of the encoder alone."""
        with counted(self.weight(batch)):
            tokens_BLD, maps = self.image.tokens_and_maps(self.pixels(batch["image"]).to(self.dtype))
        present_B1 = batch.present["image"][:, None]
        mask_BL = present_B1.expand(tokens_BLD.shape[:2])
        pooled_BD = self.pooled(tokens_BLD) * present_B1
        return Encoded(tokens_BLD, mask_BL, pooled_BD, maps, {"image": (tokens_BLD, mask_BL)})


def field_problems(schema: Schema, method: str, wanted: Mapping[str, str]) -> Iterable[str]:
    """What is wrong with the fields that a method reads: {field: kind}."""
    for name, kind in wanted.items():
        known = schema.fields.get(name)
        if known is None:
            yield schema.lacks(name, method)
        elif known.kind != kind:
            yield f"field '{name}' of {schema.source} is {known.kind}, not {kind}; pack it as {kind}"

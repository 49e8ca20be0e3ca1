"""What convolutional networks share that learn to draw masks from a task's labels: reading, normalising, maps.

Shape letters: B images, C channels, H x W pixels, L places of the coarsest map, D its channels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Head, Method, MethodError, Options, Record, Sample, Schema, TargetSpec
from models.contract.image_encoder import ImageEncoder
from models.encoders.unet import UNetEncoder
from models.heads.maps import MapsHead, OwnLoss
from models.layers.batch_norm import counted
from models.transforms.crops import colours, eight_bit
from models.transforms.slices import resized, zscored

FLAIR = 1  # place of FLAIR among pre-contrast, FLAIR and post-contrast


class NetOptions(Options):
    conventions: Literal["recommended", "published"] = "recommended"
    """What is minimised: the task's loss, as with every other system, or the published code's own."""
    image_size: int = Bounded(256, ge=16)
    """Pixels of a side; other images are resized. The network's strides must divide it."""
    channels: Literal["all3", "flair"] = "all3"
    """Of an image three channels (a single one is repeated), or the second alone (FLAIR in the LGG set; of one with one channel, that)."""
    normalise: Literal["slice", "none"] = "slice"
    """Pixels as z-scores of each image and channel, or as they are stored, 0 to 1 (where whole volumes were normalised before)."""


class NetMethod(Method):
    """Base of systems without pre-training whose only input is `image`. A subclass makes `image`, an `ImageEncoder`, and `decoder`."""

    Options = NetOptions
    pairs = "image, with a task's masks"
    inputs = ("image",)
    draws_masks = True
    own_loss: ClassVar[OwnLoss]
    """What `conventions: published` minimises in place of the task's loss."""
    options: NetOptions
    image: nn.Module

    def __init__(self, options: NetOptions, schema: Schema, stride: int):
        super().__init__(options, schema)
        size, problems = options.image_size, []
        if (field := schema.fields.get("image")) is None:
            problems.append(schema.lacks("image", self.name))
        elif field.kind != "image":
            problems.append(f"field 'image' of {schema.source} is {field.kind}; pack it as PNG or JPEG")
        if size % stride:
            near = max(stride, size // stride * stride)
            problems.append(
                f"method.image_size: {size} is no multiple of {stride}, the network's coarsest stride; use {near} or {near + stride}"
            )
        if problems:
            raise MethodError(problems)

    @property
    def in_channels(self) -> int:
        return 1 if self.options.channels == "flair" else 3

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        o, present = self.options, record.has("image")
        image_HWC = np.zeros((o.image_size, o.image_size, self.in_channels), np.uint8)
        if present:
            image_HWC = resized(self._channels(eight_bit(record.read("image"))), o.image_size)
        return Sample({"image": image_HWC}, {"image": present})

    def _channels(self, image_HWC: np.ndarray) -> np.ndarray:
        if self.options.channels == "all3":
            return np.ascontiguousarray(colours(image_HWC, grayscale=False))
        at = FLAIR if image_HWC.shape[2] >= 3 else 0
        return np.ascontiguousarray(image_HWC[..., at : at + 1])

    def decoder(self, outputs: int) -> nn.Module:
        """Maps, finest first -> logits [B, K, H, W] at the image's size, of so many structures."""
        raise NotImplementedError

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head | None:
        """The decoder for masks; other tasks have any head on the pooled coarsest map."""
        if target.kind != "segmentation":
            return None
        return MapsHead(
            self.decoder(target.outputs), self.own_loss if self.options.conventions == "published" else None
        )

    def image_encoder(self) -> ImageEncoder:
        assert isinstance(self.image, ImageEncoder)
        return self.image

    def pixels(self, batch: Batch) -> Tensor:
        """Normalised pixels [B, C, H, W]; of an image that is not there 0."""
        x_BHWC = batch["image"]
        x_BCHW = zscored(x_BHWC) if self.options.normalise == "slice" else x_BHWC.permute(0, 3, 1, 2).float() / 255
        return x_BCHW.masked_fill(~batch.present["image"][:, None, None, None], 0.0).to(self.dtype)

    def encode(self, batch: Batch) -> Encoded:
        """Tokens are the places of the coarsest map, pooled is their mean (0 without an image); `maps` are all, finest first."""
        seen_B = batch.present["image"]
        # Padding and absent images would move the batch statistics of all others.
        with counted(batch.weight_B * seen_B):
            maps = tuple(self.image(self.pixels(batch)))
        tokens_BLD = maps[-1].flatten(2).transpose(1, 2)
        pooled_BD = tokens_BLD.mean(1) * seen_B[:, None]
        return Encoded(tokens_BLD, seen_B[:, None].expand(tokens_BLD.shape[:2]), pooled_BD, maps)


class LevelOptions(NetOptions):
    features: int = Bounded(32, ge=1, le=1024)
    """Channels of the finest level; each level below has twice as many."""


class LevelMethod(NetMethod):
    """Base of U-Nets: `levels` levels, each half as fine and twice as wide as the one above, down by `Encoder` and up by `decoder`."""

    Options = LevelOptions
    levels: ClassVar[int] = 5
    Encoder: ClassVar[type[UNetEncoder]]
    options: LevelOptions
    image: UNetEncoder

    def __init__(self, options: LevelOptions, schema: Schema):
        super().__init__(options, schema, 1 << (self.levels - 1))
        side = options.image_size
        self.image = self.Encoder(self.in_channels, options.features, (side, side), self.levels)

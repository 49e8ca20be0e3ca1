"""What systems share that corrupt an image and restore all of it: one view, its corruption, the decoder, the loss.

Shape letters: B images, C channels (1 or 3), H x W pixels, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch, Output, Record, Sample, Schema
from models.decoders.pixels import PixelOptions, pixel_decoder
from models.encoders.image import ImageOptions
from models.encoders.resnet import ConvNet, ResNetOptions
from models.layers.batch_norm import counted
from models.methods._image import ImageMethodOptions
from models.methods.masked._restoring import MILD, HidingMethod
from models.parallel import global_mean
from models.pictures import first
from models.transforms.corrupt import SMALLEST, Corruption, Perturbation, flipped
from models.transforms.crops import Picture, centre_view, picture_of
from models.transforms.image import normalised
from models.transforms.views import Views


class RestorationOptions(ImageMethodOptions):
    image: ImageOptions = ResNetOptions(name="resnet18")
    """The image encoder."""
    grayscale: bool = True
    """Images as one channel (luma), repeated for the encoder, now and when deployed; false: three, of which all are restored."""
    flip_p: float = 0.4
    """With `views: official`: rows or columns are reversed while a number falls below it, three times at most."""
    loss_on: Literal["all", "corrupted"] = "all"
    """Pixels that the loss is the mean of: all, or those that the corruption changed."""
    decoder: PixelOptions = PixelOptions()
    """What restores the pixels."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not 0 <= self.flip_p <= 1:
            yield f"{where}.flip_p: {self.flip_p} is no probability; give 0 to 1"
        if self.image.image_size < SMALLEST:
            yield f"{where}.image.image_size: {self.image.image_size} pixels are too few to paint over; give {SMALLEST} or more"


class Restored(NamedTuple):
    """Tokens [B, L, D], what is made of the image [B, C, H, W] in [0, 1], and maps where the encoder has them."""

    tokens_BLD: Tensor
    made_BCHW: Tensor
    maps: Sequence[Tensor] = ()


class RestorationMethod(HidingMethod):
    """`image` (the encoder) and `decoder`; pooled is the mean of the patch tokens. A subclass says what corrupts (`corruption`).

    The loss is the mean squared error of a sigmoid against pixels in [0, 1].
    """

    official = MILD  # not read: the published views cut nothing out
    corruption: Corruption | Perturbation
    flip_axes = 2
    options: RestorationOptions

    def __init__(self, options: RestorationOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        self.grey, self.channels = o.grayscale, 1 if o.grayscale else 3
        turned = o.views == "paper"
        scale = None if turned else o.crop_scale or MILD
        self.drawn = Views(
            "paper" if turned else "crop", self._size, count=1, scale=scale, channels=1 if o.grayscale else 3
        )
        self.decoder = pixel_decoder(self.image, o.decoder, self.channels)

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """In pre-training `target` [H, W, C] and what became of it, `corrupted` [H, W, C] in [0, 1]; else `image` [H, W, 3]."""
        if not self.stage:
            return super().sample(record, rng)
        picture = picture_of(record, "image", self.options.grayscale) if record.has("image") else None
        return self.corrupted(None if picture is None else self.view(picture, rng), rng)

    def corrupted(self, target_HWC: np.ndarray | None, rng: np.random.Generator) -> Sample:
        """The arrays of what is to be restored; None: there is no image."""
        shape = (self._size, self._size, self.channels)
        if target_HWC is None:
            return Sample(
                {"corrupted": np.zeros(shape, np.float16), "target": np.zeros(shape, np.uint8)}, {"image": False}
            )
        made_HWC = self.corruption(target_HWC, rng).astype(np.float16)
        return Sample({"corrupted": made_HWC, "target": target_HWC}, {"image": True})

    def view(self, picture: Picture, rng: np.random.Generator) -> np.ndarray:
        """What is to be restored: uint8 [H, W, C]."""
        o = self.options
        if o.views != "official":
            return self.drawn.draw(picture, rng)["views"][0]
        return flipped(centre_view(picture, self._size), o.flip_p, self.flip_axes, rng)

    def restored(self, corrupted_BHWC: Tensor, weight_B: Tensor) -> Restored:
        """A pass through encoder and decoder."""
        x_BCHW = normalised(255 * corrupted_BHWC.float()).to(self.dtype)
        with counted(weight_B):
            if isinstance(self.image, ConvNet):
                maps = self.image(x_BCHW)
                tokens_BLD = maps[-1].flatten(2).transpose(1, 2)
                return Restored(tokens_BLD, self.decoder(maps).float().sigmoid(), maps)
            tokens_BLD = self.image.tokens(x_BCHW)
            return Restored(tokens_BLD, self.decoder(tokens_BLD).float().sigmoid())

    def forward(self, batch: Batch) -> Output:
        weight_B = self.weight(batch)
        made = self.restored(batch["corrupted"], weight_B)
        loss, diagnostics = self.restoring_loss(made.made_BCHW, batch, weight_B)
        features = {"image": self.pooled(made.tokens_BLD).detach()}
        return Output({"restore": loss}, loss, diagnostics, features)

    def restoring_loss(self, made_BCHW: Tensor, batch: Batch, weight_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error, and what simple answers cost: the image as it came, and the mean of all pixels."""
        target_BCHW = batch["target"].permute(0, 3, 1, 2).float() / 255
        given_BCHW = batch["corrupted"].permute(0, 3, 1, 2)
        # Both are rounded alike, so that what was left as it is equals its target to the last bit.
        on_B1HW = (given_BCHW != target_BCHW.to(given_BCHW.dtype)).any(1, keepdim=True)
        changed = mean_over((on_B1HW * 1.0).mean((1, 2, 3)), weight_B)
        on_BCHW = on_B1HW if self.options.loss_on == "corrupted" else torch.ones_like(on_B1HW)
        on_BCHW = (on_BCHW & (weight_B > 0).view(-1, 1, 1, 1)).expand_as(target_BCHW)

        def cost(x: Tensor) -> Tensor:
            each = torch.where(on_BCHW, (x - target_BCHW).square(), 0.0)
            return global_mean((each.sum((1, 2, 3)) * weight_B).sum(), (on_BCHW.sum((1, 2, 3)) * weight_B).sum())

        with torch.no_grad():
            centre = mean_over(target_BCHW.mean((1, 2, 3)), weight_B)
            told = {
                "restore_identity": cost(given_BCHW.float()),
                "restore_baseline": cost(centre),
                "changed": changed,
            }
        return cost(made_BCHW), told

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`reconstruction`, a row a sample: the image, what became of it, what was made of that."""
        few = first(batch)
        made_BCHW = self.restored(few["corrupted"], self.weight(few)).made_BCHW
        target_BCHW, given_BCHW = (few[n].permute(0, 3, 1, 2).float() for n in ("target", "corrupted"))
        rows_BCHW = torch.cat([target_BCHW / 255, given_BCHW, made_BCHW.to(given_BCHW.device)], 3)
        pixels_BHWC = (rows_BCHW * 255).round().clamp(0, 255).permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
        return {"reconstruction": np.concatenate(list(pixels_BHWC.to(torch.uint8).cpu().numpy()), 0)}


def mean_over(x_B: Tensor, weight_B: Tensor) -> Tensor:
    """Mean over the samples of all ranks that count."""
    return global_mean((torch.where(weight_B > 0, x_B, 0.0) * weight_B).sum(), weight_B.sum())

"""All pixels of an image from what an encoder makes of it: of a transformer's tokens, or of a convolutional network's maps.

Shape letters: B images, L tokens, C channels of an image, H x W pixels, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import MethodError, Options
from models.decoders.mae import FusionDecoder, unpatchify
from models.decoders.maps import patch_tokens
from models.decoders.unet import UNetDecoder
from models.encoders.positions import sincos_2d
from models.encoders.resnet import ConvNet
from models.encoders.vit import ViT


class PixelOptions(Options):
    """Of the decoder of a transformer's tokens; that of a convolutional network has the widths of its maps."""

    dim: int = Bounded(512, ge=4)
    """With a transformer: width of the decoder."""
    depth: int = Bounded(8, ge=1)
    """With a transformer: its blocks."""
    heads: int = Bounded(16, ge=1)
    """With a transformer: its attention heads."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        for unit, why in ((self.heads, f"{where}.heads"), (4, "which its positions need")):
            if self.dim % unit:
                yield f"{where}.dim: {self.dim} is not a multiple of {unit} ({why}); make it one"


class TokenPixels(nn.Module):
    """Tokens [B, L, D] -> [B, C, H, W]: MAE's decoder (He et al. 2022) with all tokens seen, and a linear layer to each patch's pixels."""

    def __init__(self, image: ViT, options: PixelOptions, channels: int):
        super().__init__()
        self.grid, self.patch = image.grid, image.patch
        places = sincos_2d(*image.grid, options.dim)
        values = channels * image.patch**2
        self.tokens = FusionDecoder(image.width, None, options.dim, options.depth, options.heads, values, places)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        return unpatchify(self.tokens(patch_tokens(tokens_BLD, self.grid)), self.patch, self.grid)


class MapPixels(nn.Module):
    """Maps, finest first -> [B, C, H, W]: a U-Net's way up to the finest map, and from each of its places a square of pixels."""

    def __init__(self, image: ConvNet, channels: int):
        super().__init__()
        self.stride = image.strides[0]
        self.up = UNetDecoder(image.channels, channels * self.stride**2)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return F.pixel_shuffle(self.up(maps), self.stride)


def pixel_decoder(image: ViT | ConvNet, options: PixelOptions, channels: int) -> TokenPixels | MapPixels:
    """The decoder for an encoder.

    Raises:
        MethodError: a convolutional network whose maps are not each half as fine as the one before on images of this size.
    """
    if isinstance(image, ViT):
        return TokenPixels(image, options, channels)
    side, last = image.image_size[0], image.strides[-1]
    if any(b != 2 * a for a, b in zip(image.strides, image.strides[1:], strict=False)):
        raise MethodError(
            [
                f"method.image.name: maps of {image.name} have strides {image.strides}, not each twice the one before; take resnet18"
            ]
        )
    if side % last:
        near = max(last, side // last * last)
        raise MethodError(
            [
                f"method.image.image_size: {side} is no multiple of {last}, the coarsest stride of {image.name}; "
                f"use {near} or {near + last}"
            ]
        )
    return MapPixels(image, channels)

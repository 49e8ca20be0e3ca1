"""The contracting path of a deep residual U-Net (Zhang, Liu, Wang 2018, table I). Shape letters: B images, C channels, H x W pixels."""

from __future__ import annotations

from torch import Tensor, nn

from models.encoders.unet import UNetEncoder
from models.layers.conv_block import ResidualUnit


class ResUNetEncoder(UNetEncoder):
    """An `ImageEncoder`: a residual unit a level; below the first its own stride of 2 shrinks the map, nothing is pooled."""

    def level(self, in_channels: int, out_channels: int, first: bool) -> nn.Module:
        return ResidualUnit(in_channels, out_channels, stride=1 if first else 2, first=first)

    def shrunk(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW

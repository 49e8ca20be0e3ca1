"""Convolution, batch norm, ReLU: what convolutional segmentation networks are made of.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import nn

from models.layers.batch_norm import GlobalBatchNorm2d


def conv_norm(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = False
) -> list[nn.Module]:
    """A convolution that keeps the size (at stride 1) and the batch norm behind it."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)
    return [conv, GlobalBatchNorm2d(out_channels)]


class DoubleConv(nn.Sequential):
    """Twice a 3 x 3 convolution, batch norm and ReLU, [B, in, H, W] -> [B, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False):
        first, second = (
            conv_norm(in_channels, out_channels, bias=bias),
            conv_norm(out_channels, out_channels, bias=bias),
        )
        super().__init__(*first, nn.ReLU(inplace=True), *second, nn.ReLU(inplace=True))

"""The contracting path of Attention U-Net (Oktay et al. 2018): U-Net's, whose convolutions have biases, and its first weights.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import nn

from models.encoders.unet import UNetEncoder
from models.layers.conv_block import DoubleConv


class AttentionUNetEncoder(UNetEncoder):
    """An `ImageEncoder`: a double convolution with biases a level, maxima between them."""

    def __init__(self, in_channels: int, features: int, image_size: tuple[int, int], depth: int = 5):
        super().__init__(in_channels, features, image_size, depth)
        started(self)

    def level(self, in_channels: int, out_channels: int, first: bool) -> nn.Module:
        return DoubleConv(in_channels, out_channels, bias=True)


def started(module: nn.Module) -> None:
    """First weights as in the official code: convolutions normal by their inputs (He et al. 2015), batch norms N(1, .02)."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(m.weight)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)
            nn.init.zeros_(m.bias)

"""Convolution, batch norm, ReLU: what convolutional segmentation networks are made of.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

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


class ResidualUnit(nn.Module):
    """Full pre-activation (He et al. 2016): norm, ReLU, convolution, norm, ReLU, convolution, plus the input.

    Where size or width change the input goes through a 1 x 1 convolution and a batch norm.

    Args:
        stride: of the first convolution.
        first: the unit that sees the image: no norm and ReLU before its first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, first: bool = False):
        super().__init__()
        lead: list[nn.Module] = [] if first else [GlobalBatchNorm2d(in_channels), nn.ReLU()]
        self.body = nn.Sequential(
            *lead,
            *conv_norm(in_channels, out_channels, stride=stride),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(in_channels, out_channels, 1, stride))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.body(x_BCHW) + self.shortcut(x_BCHW)

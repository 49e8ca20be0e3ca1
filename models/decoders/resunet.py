"""The expanding path of a deep residual U-Net (Zhang, Liu, Wang 2018, table I). Shape letters: B images, C channels, H x W pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.conv_block import ResidualUnit


class ResUNetDecoder(nn.Module):
    """Maps, finest first, each of half the size of the one before -> logits [B, K, H, W] at the size of the finest.

    Level by level: bilinear doubling, what the encoder had there is joined to it ([up, skip]), a residual unit follows; a 1 x 1
    convolution ends it.

    Args:
        channels: of the maps, finest first.
        outputs: K.
    """

    def __init__(self, channels: Sequence[int], outputs: int):
        super().__init__()
        steps = zip(channels[:0:-1], channels[-2::-1], strict=True)
        self.units = nn.ModuleList(ResidualUnit(deep + fine, fine) for deep, fine in steps)
        self.out = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x_BCHW = maps[-1]
        for unit, skip_BCHW in zip(self.units, maps[-2::-1], strict=True):
            up_BCHW = F.interpolate(x_BCHW, scale_factor=2, mode="bilinear", align_corners=False)
            x_BCHW = unit(torch.cat([up_BCHW, skip_BCHW], 1))
        return self.out(x_BCHW)

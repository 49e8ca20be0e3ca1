"""The expanding path of a U-Net (Ronneberger et al. 2015, as Buda et al. 2019 have it).

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.conv_block import DoubleConv


class UNetDecoder(nn.Module):
    """Maps, finest first, each of half the size of the one before -> logits [B, K, H, W] at the size of the finest.

    Level by level: a transposed convolution doubles the size, what the encoder had there is joined to it ([up, skip]), a double
    convolution follows; a 1 x 1 convolution ends it.

    Args:
        channels: of the maps, finest first.
        outputs: K.
    """

    def __init__(self, channels: Sequence[int], outputs: int):
        super().__init__()
        steps = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 2, 2) for deep, fine in steps)
        self.blocks = nn.ModuleList(DoubleConv(2 * fine, fine) for _, fine in steps)
        self.out = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x_BCHW = maps[-1]
        for up, block, skip_BCHW in zip(self.ups, self.blocks, maps[-2::-1], strict=True):
            x_BCHW = block(torch.cat([up(x_BCHW), skip_BCHW], 1))
        return self.out(x_BCHW)

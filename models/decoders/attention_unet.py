"""The expanding path of Attention U-Net (Oktay et al. 2018): what the encoder had is gated before it is joined.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.encoders.attention_unet import started
from models.layers.attention_gate import AttentionGate
from models.layers.conv_block import DoubleConv, conv_norm

Gating = Literal["bottleneck", "decoder"]


class AttentionUNetDecoder(nn.Module):
    """Maps, finest first, each of half the size of the one before -> logits [B, K, H, W] at the size of the finest.

    Level by level: a transposed convolution doubles the size, what the encoder had there, gated, is joined to it ([skip, up]), a double
    convolution follows; a 1 x 1 convolution ends it. The finest level's map is not gated.

    Args:
        channels: of the maps, finest first.
        outputs: K.
        gating: what opens the gates: the bottleneck, all of them, or the level below each, the bottleneck the deepest.
    """

    def __init__(self, channels: Sequence[int], outputs: int, gating: Gating = "bottleneck"):
        super().__init__()
        self.gating = gating
        steps = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        signal = channels[-2]
        self.signal = nn.Sequential(*conv_norm(channels[-1], signal, 1, bias=True), nn.ReLU())
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 4, 2, 1) for deep, fine in steps)
        widths = [signal if i == 0 or gating == "bottleneck" else deep for i, (deep, _) in enumerate(steps)]
        gated = list(zip(steps, widths, strict=True))[:-1]
        self.gates = nn.ModuleList(AttentionGate(fine, width) for (_, fine), width in gated)
        self.blocks = nn.ModuleList(DoubleConv(2 * fine, fine, bias=True) for _, fine in steps)
        self.out = nn.Conv2d(channels[0], outputs, 1)
        started(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x_BCHW = maps[-1]
        signal = self.signal(x_BCHW)
        for i, (up, block, skip_BCHW) in enumerate(zip(self.ups, self.blocks, maps[-2::-1], strict=True)):
            if i < len(self.gates):
                skip_BCHW = self.gates[i](skip_BCHW, signal if i == 0 or self.gating == "bottleneck" else x_BCHW)
            x_BCHW = block(torch.cat([skip_BCHW, up(x_BCHW)], 1))
        return self.out(x_BCHW)

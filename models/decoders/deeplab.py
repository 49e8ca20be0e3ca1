"""The decoder of DeepLabv3+ (Chen et al. 2018, section 3.1), from segmentation-models-pytorch, whose differences docs/methods name.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from torch import Tensor, nn

from models.layers.batch_norm import globalised


class DeepLabDecoder(nn.Module):
    """Maps of strides 2, 4, 8, 16 (and 16 again, dilated) or 2, 4, 8, 8, 8, finest first -> logits [B, K, H, W] at the image's size.

    Atrous spatial pyramid pooling of the last map, joined to the one of stride 4, which has 48 channels then.

    Args:
        channels: of the maps.
        outputs: K.
        width: channels of every branch of the pyramid and behind it.
        output_stride: of the last map, 16 or 8.
        dropout: behind the pyramid.
    """

    def __init__(self, channels: Sequence[int], outputs: int, width: int, output_stride: int, dropout: float):
        super().__init__()
        # timm, which the library imports, takes seconds: only those who build a decoder wait for it.
        library = importlib.import_module("segmentation_models_pytorch.decoders.deeplabv3.decoder")
        self.pyramid: nn.Module = globalised(
            library.DeepLabV3PlusDecoder(
                encoder_channels=(0, *channels),
                encoder_depth=5,
                out_channels=width,
                # The paper's rates: twice as far where the map is twice as fine. The library takes these always.
                atrous_rates=(6, 12, 18) if output_stride == 16 else (12, 24, 36),
                output_stride=output_stride,
                aspp_separable=True,
                aspp_dropout=dropout,
            )
        )
        self.out = nn.Conv2d(width, outputs, 1)
        self.grow = nn.UpsamplingBilinear2d(scale_factor=4)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.grow(self.out(self.pyramid([maps[0], *maps])))

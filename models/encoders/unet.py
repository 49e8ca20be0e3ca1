"""The contracting path of a U-Net (Ronneberger et al. 2015, as Buda et al. 2019 have it).

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from models.contract.loaded import Loaded
from models.encoders.pyramid import Pyramid
from models.init.weights import load_strict, read_weights
from models.layers.conv_block import DoubleConv


class UNetEncoder(Pyramid):
    """An `ImageEncoder` (models/contract/image_encoder.py): a double convolution a level, each level half as fine and twice as wide.

    Args:
        in_channels: of an image.
        features: channels of the finest level.
        depth: levels, the bottleneck with them.
    """

    def __init__(self, in_channels: int, features: int, image_size: tuple[int, int], depth: int = 5):
        super().__init__()
        self.image_size = image_size
        self.channels = tuple(features << i for i in range(depth))
        self.strides = tuple(1 << i for i in range(depth))
        widths = zip((in_channels, *self.channels), self.channels, strict=False)
        self.levels = nn.ModuleList(self.level(a, b, i == 0) for i, (a, b) in enumerate(widths))

    def level(self, in_channels: int, out_channels: int, first: bool) -> nn.Module:
        """What stands on a level; below the first it gets the map above at half its size."""
        return DoubleConv(in_channels, out_channels)

    def shrunk(self, x_BCHW: Tensor) -> Tensor:
        """A map on its way to the level below."""
        return F.max_pool2d(x_BCHW, 2)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """The maps of all levels, finest first; the last is the bottleneck."""
        maps = [self.levels[0](x_BCHW)]
        for level in self.levels[1:]:
            maps.append(level(self.shrunk(maps[-1])))
        return maps

    def layers(self) -> list[tuple[str, ...]]:
        return [(f"levels.{i}.",) for i in range(len(self.levels))]

    def load_file(self, path: str | Path) -> Loaded:
        return load_strict(self, read_weights(path), str(path))

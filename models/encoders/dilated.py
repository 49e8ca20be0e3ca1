"""ResNets whose last stages are dilated instead of halved, as DeepLab has them, from segmentation-models-pytorch.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from models.contract.loaded import Loaded
from models.encoders.pyramid import Pyramid
from models.init.weights import load_strict, read_weights
from models.layers.batch_norm import globalised

Name = Literal["resnet18", "resnet34", "resnet50", "resnet101"]


class DilatedResNet(Pyramid):
    """An `ImageEncoder` (models/contract/image_encoder.py): the library's encoder of this name, which is `net`.

    Args:
        in_channels: of an image.
        output_stride: of the last maps, 16 or 8.
    """

    def __init__(self, name: Name, in_channels: int, image_size: tuple[int, int], output_stride: int):
        super().__init__()
        self.image_size = image_size
        # timm, which the library imports, takes seconds: only those who build the network wait for it.
        library = importlib.import_module("segmentation_models_pytorch.encoders")
        net: Any = library.get_encoder(
            name, in_channels=in_channels, depth=5, weights=None, output_stride=output_stride
        )
        self.channels: tuple[int, ...] = tuple(net.out_channels[1:])
        self.strides: tuple[int, ...] = tuple(min(2 << i, output_stride) for i in range(5))
        self.net: nn.Module = globalised(net)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """All maps, finest first; the library gives the image itself before them."""
        return list(self.net(x_BCHW))[1:]

    def layers(self) -> list[tuple[str, ...]]:
        return [("net.conv1.", "net.bn1."), *((f"net.layer{i}.",) for i in range(1, 5))]

    def load_file(self, path: str | Path) -> Loaded:
        """A file of the whole network under torchvision's names; its classifier is left out."""
        state = read_weights(path)
        skipped = tuple(n for n in state if n.startswith("fc."))
        taken = load_strict(self.net, {n: v for n, v in state.items() if n not in skipped}, str(path)).taken
        return Loaded(str(path), taken, skipped)

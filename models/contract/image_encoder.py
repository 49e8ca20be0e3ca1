"""What every image encoder can be asked, whether it is a vision transformer or a convolutional network."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from models.contract.loaded import Loaded


@runtime_checkable
class ImageEncoder(Protocol):
    """Images [B, 3, H, W] -> tokens, or maps of several strides.

    image_size  (height, width) in pixels that it is built for
    width       D, of the tokens
    strides     of all its maps, finest first, in pixels: a ResNet's (2, 4, 8, 16, 32), a ViT's (patch,) x 4
    channels    of these maps
    """

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def width(self) -> int: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def channels(self) -> tuple[int, ...]: ...

    def tokens(self, x_BCHW: Tensor) -> Tensor:
        """[B, L, D]: a ViT's normalised tokens, its class token first if it has one; of a CNN the places of its last map, row by row."""
        ...

    def maps(self, x_BCHW: Tensor, n: int = 4) -> list[Tensor]:
        """The `n` deepest maps [B, C, rows, columns], finest first, for decoders; their strides are the last `n` of `strides`."""
        ...

    def tokens_and_maps(self, x_BCHW: Tensor, n: int = 4) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`tokens` and `maps` of one pass through the network."""
        ...

    def layers(self) -> list[tuple[str, ...]]:
        """Beginnings of parameter names from bottom to top, which together cover all parameters: what layer decay counts."""
        ...

    def load_file(self, path: str | Path) -> Loaded:
        """First weights from a file, strictly: every tensor must be there and fit; a classifier in the file is left out.

        Raises:
            MethodError: everything that did not match, by name.
        """
        ...

"""What convolutional encoders share: tokens are the places of the last of their maps.

Shape letters: B images, L places, D channels of the last map, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn


class Pyramid(nn.Module):
    """The part of an `ImageEncoder` (models/contract/image_encoder.py) that follows from `forward`: all maps, finest first."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def width(self) -> int:
        return self.channels[-1]

    def tokens(self, x_BCHW: Tensor) -> Tensor:
        """Places of the last map, row by row, [B, L, D]."""
        return _places(self(x_BCHW)[-1])

    def maps(self, x_BCHW: Tensor, n: int = 4) -> list[Tensor]:
        """The `n` deepest maps, finest first."""
        assert 1 <= n <= len(self.strides), f"{type(self).__name__} has {len(self.strides)} maps, not {n}"
        found: list[Tensor] = self(x_BCHW)[-n:]
        return found

    def tokens_and_maps(self, x_BCHW: Tensor, n: int = 4) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Places of the last map, and maps: of one pass."""
        maps = tuple(self.maps(x_BCHW, n))
        return _places(maps[-1]), maps


def _places(x_BDHW: Tensor) -> Tensor:
    return x_BDHW.flatten(2).transpose(1, 2)

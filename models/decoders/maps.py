"""From tokens of a ViT to maps. Shape letters: B images, L tokens, P patches (grid rows x columns), D width, H x W places."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def patch_tokens(tokens_BLD: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """The tokens of the patches, [B, P, D]: all, or all but a class token in front; of a map [B, D, rows, columns] its places."""
    if tokens_BLD.ndim == 4:
        return tokens_BLD.flatten(2).transpose(1, 2)
    assert grid is not None, "tokens say nothing of their grid"
    P = grid[0] * grid[1]
    extra = tokens_BLD.shape[1] - P
    assert extra in (0, 1), (
        f"{tokens_BLD.shape[1]} tokens are no grid of {grid[0]} x {grid[1]}, with or without class token"
    )
    return tokens_BLD[:, extra:]


def token_map(tokens_BLD: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Tokens of the patches as a map [B, D, rows, columns]; a map as it is."""
    if tokens_BLD.ndim == 4:
        return tokens_BLD
    assert grid is not None, "tokens say nothing of their grid"
    return patch_tokens(tokens_BLD, grid).transpose(1, 2).unflatten(2, grid)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each place of a map [B, C, H, W]."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        normed_BHWC = F.layer_norm(x_BHWC, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed_BHWC.permute(0, 3, 1, 2)

"""Transformer decoder in the manner of MAE (He et al. 2022, section 3), with an optional second modality beside the own.

Shape letters: B samples, L own tokens, S tokens of the other modality, D their widths, W decoder width, F output width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.init.first import xavier_linears
from models.layers.transformer import Block

EPS = 1e-6


class FusionDecoder(nn.Module):
    """Own tokens, concatenated with the other modality's along the token axis, -> a prediction for every own token.

    Each side has a Linear of its own to the decoder's width and an embedding of its kind; fixed positions are added
    where they are given. What the blocks make of the own tokens is normed and mapped to `out` values.

    Args:
        other_dim: width of the other modality's tokens; None: there is none.
        own_places, other_places: fixed positions [L, W] and [S, W], or None.
    """

    def __init__(
        self,
        own_dim: int,
        other_dim: int | None,
        width: int,
        depth: int,
        heads: int,
        out: int,
        own_places: Tensor | None = None,
        other_places: Tensor | None = None,
    ):
        super().__init__()
        self.embed_own = nn.Linear(own_dim, width)
        self.embed_other = None if other_dim is None else nn.Linear(other_dim, width)
        self.kind_2W = None if other_dim is None else nn.Parameter(torch.randn(2, width) * 0.02)
        self.register_buffer("own_places_LW", own_places, persistent=False)
        self.register_buffer("other_places_SW", other_places, persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, out)
        xavier_linears(self)

    def forward(
        self,
        own_BLD: Tensor,
        own_real_BL: Tensor | None = None,
        other_BSD: Tensor | None = None,
        other_real_BS: Tensor | None = None,
    ) -> Tensor:
        """Predictions [B, L, F]. `real` masks are True where a token is real; the others are looked at by nobody."""
        x = self.embed_own(own_BLD)
        x = x if self.own_places_LW is None else x + self.own_places_LW.to(x.dtype)
        real = own_real_BL
        if self.embed_other is not None and other_BSD is not None:
            y = self.embed_other(other_BSD)
            y = y if self.other_places_SW is None else y + self.other_places_SW.to(y.dtype)
            real = _joined(x, own_real_BL, y, other_real_BS)
            assert self.kind_2W is not None
            x = torch.cat([x + self.kind_2W[0], y + self.kind_2W[1]], 1)
        for block in self.blocks:
            x = block(x, real)
        return self.head(self.norm(x[:, : own_BLD.shape[1]]))


def _joined(x: Tensor, x_real: Tensor | None, y: Tensor, y_real: Tensor | None) -> Tensor | None:
    if x_real is None and y_real is None:
        return None
    masks = [
        torch.ones(t.shape[:2], dtype=torch.bool, device=t.device) if m is None else m
        for t, m in ((x, x_real), (y, y_real))
    ]
    return torch.cat(masks, 1)


def patchify(image_BCHW: Tensor, patch: int) -> Tensor:
    """Pixels of each patch [B, P, patch * patch * C], patches row by row, inside a patch (row, column, colour)."""
    B, C, H, W = image_BCHW.shape
    x = image_BCHW.reshape(B, C, H // patch, patch, W // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, -1, patch * patch * C)


def unpatchify(pixels_BPF: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: [B, C, H, W] for a grid of (rows, columns) patches."""
    B, rows, columns = len(pixels_BPF), *grid
    x = pixels_BPF.reshape(B, rows, columns, patch, patch, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(B, -1, rows * patch, columns * patch)


def norm_patches(target_BPF: Tensor) -> Tensor:
    """Each patch scaled to mean 0 and variance 1 (MAE's normalised pixels; unbiased variance + 1e-6)."""
    centred = target_BPF - target_BPF.mean(-1, keepdim=True)
    return centred / (target_BPF.var(-1, keepdim=True) + 1e-6).sqrt()

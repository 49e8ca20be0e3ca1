"""The patch aggregator of GiMP (Jin et al. 2023, section 2.2): patch features -> class token and patch tokens.

Shape letters: B bags, L patches, F patch feature width, C width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from models.layers.nystrom import LongAttention


def sincos_1d(length: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Fixed sine-cosine positions [length, dim] (Vaswani et al. 2017, section 3.5)."""
    place_L1 = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(10_000.0) / dim))
    return torch.stack([(place_L1 * rate).sin(), (place_L1 * rate).cos()], -1).flatten(1).to(dtype)


class PPEG(nn.Module):
    """Positions from convolutions over the patches laid out as a square (Shao et al. 2021, TransMIL)."""

    def __init__(self, dim: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim) for k in (7, 5, 3))

    def forward(self, x_BLC: Tensor, patches_B: Tensor | None = None) -> Tensor:
        """`patches_B`: real patches of each bag; its square follows from its own length, not from its batch mates."""
        if patches_B is None:
            return self._square(x_BLC)
        rows = [
            torch.cat([self._square(x[None, :n])[0], x[n:]]) for x, n in zip(x_BLC, patches_B.tolist(), strict=True)
        ]
        return torch.stack(rows)

    def _square(self, x_BLC: Tensor) -> Tensor:
        L = x_BLC.shape[1]
        if L == 0:
            return x_BLC
        side = math.isqrt(L - 1) + 1
        # The square's empty places are filled with the first patches again.
        place = torch.arange(side * side, device=x_BLC.device) % L
        map_BCHW = x_BLC[:, place].transpose(1, 2).unflatten(2, (side, side))
        out = map_BCHW
        for conv in self.convs:
            out = out + conv(map_BCHW)
        return out.flatten(2).transpose(1, 2)[:, :L]


class Layer(nn.Module):
    """x + Attention(LN(x)); eq. 2 has no feed-forward part."""

    def __init__(self, dim: int, attn: LongAttention, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = attn
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        return x_BLC + self.drop(self.attn(self.norm(x_BLC), lengths_B))


class PatchAggregator(nn.Module):
    """Patches [B, L, F] -> (class token [B, C], patch tokens [B, L, C]).

    Args:
        attention: "nystrom" (the paper) or "exact".
        mask_token: replace masked patches, after the projection, by a learned token; else by zeros before it.
        pos: "sincos1d" adds the patch's place in the sequence.
        ppeg: TransMIL's convolutional positions between the first two layers.
    """

    def __init__(
        self,
        features: int,
        dim: int,
        heads: int = 8,
        depth: int = 2,
        attention: Literal["nystrom", "exact"] = "nystrom",
        landmarks: int = 256,
        iterations: int = 6,
        conv_kernel: int | None = 33,
        ppeg: bool = False,
        pos: Literal["none", "sincos1d"] = "none",
        mask_token: bool = True,
        dropout: float = 0.1,
    ):
        super().__init__()
        m = landmarks if attention == "nystrom" else None
        self.project = nn.Sequential(nn.Linear(features, dim), nn.ReLU())
        self.class_token_C = nn.Parameter(torch.randn(dim) * 0.02)
        self.mask_token_C = nn.Parameter(torch.randn(dim) * 0.02) if mask_token else None
        self.pos = pos
        self.layers = nn.ModuleList(
            Layer(dim, LongAttention(dim, heads, m, iterations, conv_kernel), dropout) for _ in range(depth)
        )
        self.ppeg = PPEG(dim) if ppeg else None
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, patches_BLF: Tensor, masked_BL: Tensor | None = None, patches_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """masked_BL: patches to hide. patches_B: real patches of each bag, which stand first; None when all are."""
        x_BLC = self._embed(patches_BLF, masked_BL)
        x_BLC = torch.cat([self.class_token_C.expand(len(x_BLC), 1, -1), x_BLC], 1)
        lengths_B = None if patches_B is None else patches_B + 1
        for i, layer in enumerate(self.layers):
            x_BLC = layer(x_BLC, lengths_B)
            if i == 0 and self.ppeg is not None:
                x_BLC = torch.cat([x_BLC[:, :1], self.ppeg(x_BLC[:, 1:], patches_B)], 1)
        x_BLC = self.norm(x_BLC)
        return x_BLC[:, 0], x_BLC[:, 1:]

    def _embed(self, patches_BLF: Tensor, masked_BL: Tensor | None) -> Tensor:
        if masked_BL is not None and self.mask_token_C is None:
            patches_BLF = patches_BLF.masked_fill(masked_BL[..., None], 0.0)
        x_BLC = self.project(patches_BLF)
        if masked_BL is not None and self.mask_token_C is not None:
            x_BLC = torch.where(masked_BL[..., None], self.mask_token_C, x_BLC)
        if self.pos == "sincos1d":
            x_BLC = x_BLC + sincos_1d(x_BLC.shape[1], x_BLC.shape[2], x_BLC.device, x_BLC.dtype)
        return x_BLC

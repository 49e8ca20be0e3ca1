"""The patch aggregator of GiMP (Jin et al. 2023, section 2.2): patch features -> class token and patch tokens.

Shape letters: B bags, L patches, F patch feature width, C width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
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
        """`patches_B`: real patches of each bag; its square follows from its own length, not from its batch mates.

        The square's empty places are filled with the bag's first patches again. What stands behind a bag's patches is given back as it is.
        """
        B, L = x_BLC.shape[:2]
        if L == 0:
            return x_BLC
        n_B1 = torch.full((B, 1), L, device=x_BLC.device) if patches_B is None else patches_B[:, None]
        from_BS, inside_BS, to_BL = _canvas(n_B1, L)
        map_BCS = _rows(x_BLC, from_BS).masked_fill(~inside_BS[..., None], 0.0).transpose(1, 2)
        map_BCHW = map_BCS.unflatten(2, (math.isqrt(from_BS.shape[1]), -1))
        out = map_BCHW
        for conv in self.convs:
            out = out + conv(map_BCHW)
        real_BL1 = (torch.arange(L, device=x_BLC.device) < n_B1)[..., None]
        return torch.where(real_BL1, _rows(out.flatten(2).transpose(1, 2), to_BL), x_BLC)


def _canvas(n_B1: Tensor, L: int) -> tuple[Tensor, Tensor, Tensor]:
    """All squares in the corner of one canvas of zeros, which is what convolutions pad with: one call serves bags of any length.

    Returns:
        for each place of the canvas the patch that lies there [B, S] and whether one does [B, S], and each patch's place [B, L].
    """
    side_B1 = sides(n_B1)
    S = int(side_B1.max())
    place_S, token_L = torch.arange(S * S, device=n_B1.device), torch.arange(L, device=n_B1.device)
    row_S, column_S = place_S.div(S, rounding_mode="floor"), place_S % S
    inside_BS = (row_S < side_B1) & (column_S < side_B1) & (n_B1 > 0)
    from_BS = (row_S * side_B1 + column_S) % n_B1.clamp_min(1)
    to_BL = token_L.div(side_B1, rounding_mode="floor") * S + token_L % side_B1
    return from_BS.masked_fill(~inside_BS, 0), inside_BS, to_BL.masked_fill(token_L >= n_B1, 0)


def sides(patches: Tensor) -> Tensor:
    """Side of the least square with a place for every patch, at least 1."""
    return patches.double().sqrt().ceil().long().clamp_min(1)


def _rows(x_BLC: Tensor, place_BN: Tensor) -> Tensor:
    return x_BLC.gather(1, place_BN[..., None].expand(-1, -1, x_BLC.shape[2]))


class Layer(nn.Module):
    """x + Attention(LN(x)); eq. 2 has no feed-forward part."""

    def __init__(self, dim: int, attn: nn.Module, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = attn
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLC: Tensor, lengths_B: Tensor | None = None, log_weight_BL: Tensor | None = None) -> Tensor:
        return x_BLC + self.drop(self.attn(self.norm(x_BLC), lengths_B, log_weight_BL))


class PatchWeight(nn.Module):
    """Log weights of the tokens of a bag, as all its layers take them: how much of each patch there is to attend to.

    All of it, which is 0 and changes nothing: made only where an answer is explained (in eval mode, with gradient), to be differentiated
    along what `scored` gives for the patches. A weight of -inf would be a patch that no token looks at. Called as no module is: one
    that some ranks call in training and others, whose bags are not padded, would put ZeRO 3's order of weights apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scored = nn.Identity()

    def of(self, patch_BNC: Tensor) -> Tensor | None:
        """[B, 1 + N], the class token in front; None elsewhere."""
        if self.training or not torch.is_grad_enabled():
            return None
        zero_BN1 = torch.zeros(*patch_BNC.shape[:2], 1, device=patch_BNC.device)
        return F.pad(self.scored(zero_BN1)[..., 0], (1, 0))


class PatchAggregator(nn.Module):
    """Patches [B, L, F] -> (class token [B, C], patch tokens [B, L, C]).

    Args:
        attention: "nystrom" (the paper), "exact", or "auto": exact for bags of up to `exact_tokens`, the class token counted.
        mask_token: replace masked patches, after the projection, by a learned token; else by zeros before it.
        pos: "sincos1d" adds the patch's place in the sequence.
        ppeg: TransMIL's convolutional positions between the first two layers.
    """

    def __init__(
        self,
        features: int,
        dim: int,
        *,
        heads: int = 8,
        depth: int = 2,
        attention: Literal["nystrom", "exact", "auto"] = "nystrom",
        exact_tokens: int = 0,
        landmarks: int = 256,
        iterations: int = 6,
        conv_kernel: int | None = 33,
        ppeg: bool = False,
        pos: Literal["none", "sincos1d"] = "none",
        mask_token: bool = True,
        dropout: float = 0.1,
    ):
        super().__init__()
        m = None if attention == "exact" else landmarks
        self.project = nn.Sequential(nn.Linear(features, dim), nn.ReLU())
        self.class_token_C = nn.Parameter(torch.randn(dim) * 0.02)
        self.mask_token_C = nn.Parameter(torch.randn(dim) * 0.02) if mask_token else None
        self.pos = pos
        self.layers = nn.ModuleList(
            Layer(dim, LongAttention(dim, heads, m, iterations, conv_kernel, exact_tokens), dropout)
            for _ in range(depth)
        )
        self.ppeg = PPEG(dim) if ppeg else None
        self.norm = nn.LayerNorm(dim)
        self.weight = PatchWeight()

    def forward(
        self, patches_BLF: Tensor, masked_BL: Tensor | None = None, patches_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """masked_BL: patches to hide. patches_B: real patches of each bag, which stand first; None when all are."""
        x_BLC = self.norm(self._through(len(self.layers), self._embed(patches_BLF, masked_BL), patches_B))
        return x_BLC[:, 0], x_BLC[:, 1:]

    def _through(self, layers: int, x_BLC: Tensor, patches_B: Tensor | None) -> Tensor:
        """Class token and embedded patches behind so many layers."""
        x_BLC = torch.cat([self.class_token_C.expand(len(x_BLC), 1, -1), x_BLC], 1)
        lengths_B = None if patches_B is None else patches_B + 1
        log_weight_BL = None if patches_B is not None else self.weight.of(x_BLC[:, 1:])
        for i, layer in enumerate(self.layers[:layers]):
            x_BLC = layer(x_BLC, lengths_B, log_weight_BL)
            if i == 0 and self.ppeg is not None:
                x_BLC = torch.cat([x_BLC[:, :1], self.ppeg(x_BLC[:, 1:], patches_B)], 1)
        return x_BLC

    def class_row(self, patches_BLF: Tensor, patches_B: Tensor | None = None) -> Tensor:
        """What the class token gives to each patch in the last layer, mean over heads [B, L]."""
        last = self.layers[-1]
        x_BLC = last.norm(self._through(len(self.layers) - 1, self._embed(patches_BLF, None), patches_B))  # type: ignore[operator]
        return last.attn.first_row(x_BLC, None if patches_B is None else patches_B + 1).mean(1)[:, 1:]  # type: ignore[union-attr, operator]

    def _embed(self, patches_BLF: Tensor, masked_BL: Tensor | None) -> Tensor:
        if masked_BL is not None and self.mask_token_C is None:
            patches_BLF = patches_BLF.masked_fill(masked_BL[..., None], 0.0)
        x_BLC = self.project(patches_BLF)
        if masked_BL is not None and self.mask_token_C is not None:
            x_BLC = torch.where(masked_BL[..., None], self.mask_token_C, x_BLC)
        if self.pos == "sincos1d":
            x_BLC = x_BLC + sincos_1d(x_BLC.shape[1], x_BLC.shape[2], x_BLC.device, x_BLC.dtype)
        return x_BLC

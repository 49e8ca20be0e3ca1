"""Decoders of segmentation from the maps of any image encoder: UPerNet (Xiao et al. 2018) over a pyramid of four, for a plain ViT the
tokens of four blocks, as BEiT fine-tunes (Bao et al. 2022, appendix); its auxiliary FCN head; and the lightest thing that can draw a mask.

The pyramid pooling and the feature pyramid are those of segmentation_models_pytorch. Its batch norm is replaced by group norm:
statistics of a batch differ from rank to rank, and a pooled map of one place has none at a micro batch of 1.

Shape letters: B images, L tokens, D width, C decoder width, K channels of the mask, H x W places.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.decoders.maps import LayerNorm2d, token_map


class UPerNetDecoder(nn.Module):
    """Four maps, finest first -> logits [B, K, rows, columns] of the finest; the caller resizes.

    Tokens of a ViT after four blocks are maps of one size, which are rescaled by 4, 2, 1 and 1/2 (transposed convolutions, identity,
    maximum of 2 x 2). Those of a convolutional network are a pyramid already.

    Args:
        dim: channels of all maps; a number each means that they are a pyramid.
        channels: C (768 in mrm_record's SIIM task, whose ViT is as wide).
        dropout: of whole channels before the last convolution.
        auxiliary: whether `auxiliary`, an FCN head on the third block's tokens, learns the same masks beside it.
    """

    auxiliary: FCNHead | None
    scale = 4  # places of the logits for a patch, along a side

    def __init__(
        self,
        dim: int | Sequence[int],
        out_channels: int = 1,
        channels: int = 256,
        dropout: float = 0.1,
        auxiliary: bool = False,
    ):
        super().__init__()
        dims = (dim,) * 4 if isinstance(dim, int) else tuple(dim)
        assert len(dims) == 4, f"UPerNet takes 4 maps, not {len(dims)}"
        self.auxiliary = FCNHead(dims[2], out_channels) if auxiliary else None
        self.rescale = _to_pyramid(dim) if isinstance(dim, int) else nn.ModuleList(nn.Identity() for _ in dims)
        # timm, which the library imports, takes seconds: only those who build a decoder wait for it.
        library = importlib.import_module("segmentation_models_pytorch.decoders.upernet.decoder")
        # Two places in front stand for the maps at strides 1 and 2, which it skips.
        self.pyramid = library.UPerNetDecoder((0, 0, *dims), encoder_depth=5, decoder_channels=channels)
        _own_norms(self.pyramid)
        self.drop = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(channels, out_channels, 1)

    def forward(self, features: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """features: maps [B, D, rows, columns], or with `grid` tokens [B, L, D], with or without a class token in front."""
        assert len(features) == 4, f"UPerNet takes 4 maps, not {len(features)}"
        maps = [scale(token_map(x, grid)) for scale, x in zip(self.rescale, features, strict=True)]
        return self.out(self.drop(self.pyramid([maps[0], maps[0], *maps])))


def _to_pyramid(dim: int) -> nn.ModuleList:
    """Makes maps of one size a pyramid."""
    return nn.ModuleList(
        [
            nn.Sequential(
                nn.ConvTranspose2d(dim, dim, 2, stride=2),
                LayerNorm2d(dim, eps=1e-6),
                nn.GELU(),
                nn.ConvTranspose2d(dim, dim, 2, stride=2),
            ),
            nn.ConvTranspose2d(dim, dim, 2, stride=2),
            nn.Identity(),
            # Rounded up, so that a grid of odd sides loses nothing and one of a single patch keeps it.
            nn.MaxPool2d(2, stride=2, ceil_mode=True),
        ]
    )


def _own_norms(module: nn.Module) -> None:
    """Group norm for batch norm, and no ReLU in place (which may not overwrite what ZeRO-3's hooks hand on)."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, group_norm(child.num_features))
        elif isinstance(child, nn.ReLU):
            setattr(module, name, nn.ReLU())
        else:
            _own_norms(child)


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups (Wu and He 2018), or fewer, so that a group has eight channels: one alone on a single place would be 0."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 8), channels), channels)


class FCNHead(nn.Module):
    """One block's tokens -> logits [B, K, rows, columns]: the auxiliary head, on the third map of the pyramid."""

    scale = 1

    def __init__(self, dim: int, out_channels: int = 1, channels: int = 256, dropout: float = 0.1):
        super().__init__()
        self.conv = nn.Conv2d(dim, channels, 3, padding=1, bias=False)
        self.norm = group_norm(channels)
        self.drop = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(channels, out_channels, 1)

    def forward(self, tokens_BLD: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        return self.out(self.drop(F.relu(self.norm(self.conv(token_map(tokens_BLD, grid))))))


class LinearMaskHead(nn.Module):
    """The last tokens -> logits by one 1 x 1 convolution: [B, K, rows, columns], or resized bilinearly to `size`."""

    scale = 1

    def __init__(self, dim: int, out_channels: int = 1):
        super().__init__()
        self.out = nn.Conv2d(dim, out_channels, 1)

    def forward(
        self, tokens_BLD: Tensor, grid: tuple[int, int] | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        logits_BKHW = self.out(token_map(tokens_BLD, grid))
        if size is None:
            return logits_BKHW
        return F.interpolate(logits_BKHW, size, mode="bilinear", align_corners=False)

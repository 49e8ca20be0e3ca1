"""The vision transformer of BEiT (Bao et al. 2022) as masked image modelling pre-trains it (SimMIM, mc-BEiT): no places but offsets.

A ViT (models/encoders/vit.py) without positions of patches, whose blocks share one table of relative positions and scale their branches.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field as Bounded
from torch import nn

from models.contract.start_files import StartFile
from models.encoders.vit import ViT, ViTOptions

STD = 0.02


class BeitOptions(ViTOptions):
    """Of the image transformer. With `positions: sincos`, without relative positions and layer scale it is the ViT of other systems."""

    init_file: StartFile = None
    """The file for `init: file`, of the same sizes and parts: one of medpair's, or, with `positions: learned`, `relative_positions:
    false` and `layer_scale: null`, timm's or MAE's (.safetensors or .pth, read without running code)."""

    positions: Literal["none", "sincos", "learned"] = "none"  # type: ignore[assignment]
    """Positions of patches: none beside relative ones, fixed 2-D sine-cosine, or learned."""
    relative_positions: bool = True
    """A learned bias of attention for every offset of two patches, one table for all blocks."""
    layer_scale: float | None = Bounded(0.1, gt=0)
    """First value of a learned factor on each channel of both branches of a block; null: no such factor."""

    def started(self) -> ViT:
        vit = super().started()
        vit.add_parts(layer_scale=self.layer_scale)
        if self.relative_positions:
            vit.share_bias()
        start_as_beit(vit)
        return vit


@torch.no_grad()
def start_as_beit(vit: ViT) -> None:
    """Matrices and class token from N(0, 0.02), cut off at one deviation; the last of each branch of block i divided by sqrt(2 i).

    The bias of keys adds the same to all logits of a query; BEiT leaves it out, here it is 0 and never matters.
    """
    for m in vit.modules():
        if isinstance(m, nn.Linear | nn.Conv2d):
            narrow_normal_(m.weight)
    if vit.cls_token is not None:
        narrow_normal_(vit.cls_token)
    for name, p in vit.named_parameters():
        if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
            p.div_(math.sqrt(2 * (int(name.split(".")[1]) + 1)))


def narrow_normal_(x: torch.Tensor) -> None:
    nn.init.trunc_normal_(x, std=STD, a=-STD, b=STD)

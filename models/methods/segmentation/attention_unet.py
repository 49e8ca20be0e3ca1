"""Attention U-Net: Learning Where to Look for the Pancreas (Oktay et al., MIDL 2018, arXiv 1804.03999), in two dimensions.

A U-Net whose skips pass gates: a coarser map says which places of a level's own map go on. It learns from a task's masks alone: there is
nothing to pre-train. docs/methods/attention_unet.md says which of the official networks this is and what `conventions` chooses.
"""

from __future__ import annotations

from pydantic import Field as Bounded
from torch import nn

from models.decoders.attention_unet import AttentionUNetDecoder, Gating
from models.encoders.attention_unet import AttentionUNetEncoder
from models.methods.segmentation._net import LevelMethod, LevelOptions
from models.registry import register


class AttentionUNetOptions(LevelOptions):
    features: int = Bounded(16, ge=1, le=1024)
    """Channels of the finest level; each level below has twice as many. (The official networks: 64 / 4.)"""
    gating: Gating = "bottleneck"
    """What opens the gates: the bottleneck, all of them, or the decoder's level below each (the official networks for CT)."""


@register("attention_unet")
class AttentionUNet(LevelMethod):
    """The contracting path; the expanding one, which needs to know how many masks, is the head."""

    Options = AttentionUNetOptions
    paper = "Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018"
    own_loss = "class_dice"
    Encoder = AttentionUNetEncoder
    options: AttentionUNetOptions

    def decoder(self, outputs: int) -> nn.Module:
        return AttentionUNetDecoder(self.image.channels, outputs, self.options.gating)

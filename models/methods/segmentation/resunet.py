"""ResU-Net: Road Extraction by Deep Residual U-Net (Zhang, Liu, Wang, IEEE GRSL 2018, arXiv 1711.10684).

A U-Net of residual units with full pre-activation: three levels and a bridge, shrunk by strides of 2 and grown by bilinear doubling. It
learns from a task's masks alone: there is nothing to pre-train. docs/methods/resunet.md says what the paper leaves open.
"""

from __future__ import annotations

from pydantic import Field as Bounded
from torch import nn

from models.decoders.resunet import ResUNetDecoder
from models.encoders.resunet import ResUNetEncoder
from models.methods.segmentation._net import LevelMethod, LevelOptions
from models.registry import register


class ResUNetOptions(LevelOptions):
    features: int = Bounded(64, ge=1, le=1024)
    """Channels of the finest level; each level below has twice as many."""


@register("resunet")
class ResUNet(LevelMethod):
    """The contracting path; the expanding one, which needs to know how many masks, is the head."""

    Options = ResUNetOptions
    paper = "Zhang et al., Road Extraction by Deep Residual U-Net, IEEE Geosci. Remote Sens. Lett. 2018"
    own_loss = "mse"
    levels = 4
    Encoder = ResUNetEncoder

    def decoder(self, outputs: int) -> nn.Module:
        return ResUNetDecoder(self.image.channels, outputs)

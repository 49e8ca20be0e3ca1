"""ResU-Net: Road Extraction by Deep Residual U-Net (Zhang, Liu, Wang, IEEE GRSL 2018, arXiv 1711.10684).

A U-Net of residual units with full pre-activation: three levels and a bridge, shrunk by strides of 2 and grown by bilinear doubling. It
learns from a task's masks alone: there is nothing to pre-train. docs/methods/resunet.md says what the paper leaves open.
"""

from __future__ import annotations

from pydantic import Field as Bounded

from models.contract import Head, Schema, TargetSpec
from models.decoders.resunet import ResUNetDecoder
from models.encoders.resunet import ResUNetEncoder
from models.heads.maps import MapsHead
from models.methods.segmentation._net import NetMethod, NetOptions
from models.registry import register

LEVELS = 4


class ResUNetOptions(NetOptions):
    features: int = Bounded(64, ge=1, le=1024)
    """Channels of the finest level; each level below has twice as many."""


@register("resunet")
class ResUNet(NetMethod):
    """The contracting path; the expanding one, which needs to know how many masks, is the head."""

    Options = ResUNetOptions
    paper = "Zhang et al., Road Extraction by Deep Residual U-Net, IEEE Geosci. Remote Sens. Lett. 2018"
    options: ResUNetOptions
    image: ResUNetEncoder

    def __init__(self, options: ResUNetOptions, schema: Schema):
        super().__init__(options, schema, 1 << (LEVELS - 1))
        side = options.image_size
        self.image = ResUNetEncoder(self.in_channels, options.features, (side, side), LEVELS)

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head | None:
        """The expanding path for masks; other tasks have any head on the pooled bridge."""
        if target.kind != "segmentation":
            return None
        decoder = ResUNetDecoder(self.image.channels, target.outputs)
        return MapsHead(decoder, "mse" if self.options.conventions == "published" else None)

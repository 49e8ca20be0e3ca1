"""U-Net (Ronneberger et al., MICCAI 2015), as Buda et al. 2019 (arXiv 1906.03720) trained it on lower-grade glioma.

Four levels and a bottleneck of double convolutions with batch norm, max pooling on the way down, transposed convolutions on the way up,
each level's map joined to what comes up. It learns from a task's masks alone: there is nothing to pre-train. docs/methods/unet.md says
where the official code differs from the paper and what `conventions` chooses.
"""

from __future__ import annotations

from pydantic import Field as Bounded

from models.contract import Head, Schema, TargetSpec
from models.decoders.unet import UNetDecoder
from models.encoders.unet import UNetEncoder
from models.heads.maps import MapsHead
from models.methods.segmentation._net import NetMethod, NetOptions
from models.registry import register

STRIDE = 16


class UNetOptions(NetOptions):
    features: int = Bounded(32, ge=1, le=1024)
    """Channels of the finest level; each level below has twice as many."""


@register("unet")
class UNet(NetMethod):
    """The contracting path; the expanding one, which needs to know how many masks, is the head."""

    Options = UNetOptions
    paper = "Buda et al., Association of genomic subtypes of lower-grade gliomas with shape features, Comput. Biol. Med. 2019"
    options: UNetOptions
    image: UNetEncoder

    def __init__(self, options: UNetOptions, schema: Schema):
        super().__init__(options, schema, STRIDE)
        self.image = UNetEncoder(self.in_channels, options.features, (options.image_size, options.image_size))

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head | None:
        """The expanding path for masks; other tasks have any head on the pooled bottleneck."""
        if target.kind != "segmentation":
            return None
        decoder = UNetDecoder(self.image.channels, target.outputs)
        return MapsHead(decoder, "batch_dice" if self.options.conventions == "published" else None)

"""DeepLabv3+: Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation (Chen et al., ECCV 2018, arXiv 1802.02611).

A ResNet whose last stage is dilated, its last map pooled at several rates at once, joined to a fine one: segmentation-models-pytorch's
modules with the paper's rates. It learns from a task's masks alone: there is nothing to pre-train. docs/methods/deeplab_v3plus.md says
where the library differs from the paper.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field as Bounded
from torch import nn

from models.contract import Schema
from models.decoders.deeplab import DeepLabDecoder
from models.encoders.dilated import DilatedResNet, Name
from models.methods.segmentation._net import NetMethod, NetOptions
from models.registry import register


class DeepLabOptions(NetOptions):
    encoder: Name = "resnet50"
    """The network that is dilated."""
    output_stride: Literal[16, 8] = 16
    """How much coarser the last map is than the image; the pyramid's rates are 6, 12 and 18, or twice as much at 8."""
    width: int = Bounded(256, ge=1)
    """Channels of every branch of the pyramid and behind it."""
    dropout: float = Bounded(0.1, ge=0, lt=1)
    """Behind the pyramid."""


@register("deeplab_v3plus")
class DeepLabV3Plus(NetMethod):
    """The dilated network; pyramid and joining, which need to know how many masks, are the head."""

    Options = DeepLabOptions
    paper = "Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, ECCV 2018"
    own_loss = "cross_entropy"
    options: DeepLabOptions
    image: DilatedResNet

    def __init__(self, options: DeepLabOptions, schema: Schema):
        super().__init__(options, schema, 16)
        o = options
        self.image = DilatedResNet(o.encoder, self.in_channels, (o.image_size, o.image_size), o.output_stride)

    def decoder(self, outputs: int) -> nn.Module:
        o = self.options
        return DeepLabDecoder(self.image.channels, outputs, o.width, o.output_stride, o.dropout)

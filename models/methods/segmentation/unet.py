"""U-Net (Ronneberger et al., MICCAI 2015), as Buda et al. 2019 (arXiv 1906.03720) trained it on lower-grade glioma.

Four levels and a bottleneck of double convolutions with batch norm, max pooling on the way down, transposed convolutions on the way up,
each level's map joined to what comes up. It learns from a task's masks alone: there is nothing to pre-train. docs/methods/unet.md says
where the official code differs from the paper and what `conventions` chooses.
"""

from __future__ import annotations

from torch import nn

from models.decoders.unet import UNetDecoder
from models.encoders.unet import UNetEncoder
from models.methods.segmentation._net import LevelMethod
from models.registry import register


@register("unet")
class UNet(LevelMethod):
    """The contracting path; the expanding one, which needs to know how many masks, is the head."""

    paper = "Buda et al., Association of genomic subtypes of lower-grade gliomas with shape features, Comput. Biol. Med. 2019"
    own_loss = "batch_dice"
    Encoder = UNetEncoder

    def decoder(self, outputs: int) -> nn.Module:
        return UNetDecoder(self.image.channels, outputs)

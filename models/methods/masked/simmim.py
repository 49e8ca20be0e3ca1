"""SimMIM: A Simple Framework for Masked Image Modeling (Xie et al. 2022, arXiv 2111.09886).

Whole blocks of an image are hidden: one learned vector stands in for their patches, and a vision transformer sees all places. One
linear layer on its tokens restores the pixels of what was hidden; the loss is their absolute error. The deployed encoder sees whole
images.

Shape letters: B images, N patches, M hidden ones, P values of a patch, L tokens, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.contract import Schema
from models.layers.patches import places_of, take
from models.methods.masked._blocks import BlockMethod, BlockOptions
from models.methods.masked._restoring import RestoringMethod
from models.registry import register


class SimMimOptions(BlockOptions):
    """What is hidden, and of which encoder, is all there is to choose."""


@register("simmim")
class SimMim(BlockMethod, RestoringMethod):
    """`image` (the encoder), `mask` (the vector in place of what is hidden) and `head`; pooled is the mean of the patch tokens."""

    Options = SimMimOptions
    paper = "Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022"
    official = (0.67, 1.0)
    options: SimMimOptions

    def __init__(self, options: SimMimOptions, schema: Schema):
        super().__init__(options, schema)
        self.head = nn.Linear(options.image.dim, 3 * options.image.patch**2)
        self.enter("")

    def gap(self, made_BMP: Tensor, target_BMP: Tensor) -> Tensor:
        return (made_BMP - target_BMP).abs().mean(-1)

    def _restored(self, pixels_BCHW: Tensor, hidden_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens_BLD, masked_BM = self._seen(pixels_BCHW, hidden_BN), places_of(hidden_BN)
        made_BMP = self.head(take(tokens_BLD[:, self._extra :], masked_BM)).float()
        # The head's values are (colour, row, column), as published; targets are (row, column, colour).
        return tokens_BLD, made_BMP.unflatten(-1, (3, -1)).mT.flatten(2), masked_BM

"""SimMIM: A Simple Framework for Masked Image Modeling (Xie et al. 2022, arXiv 2111.09886).

Whole blocks of an image are hidden: one learned vector stands in for their patches, and a vision transformer sees all places. One
linear layer on its tokens restores the pixels of what was hidden; the loss is their absolute error. The deployed encoder sees whole
images.

Shape letters: B images, N patches, M hidden ones, P values of a patch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Schema
from models.encoders.beit import BeitOptions
from models.layers.patches import MaskToken, blocks_hidden, drawn_blocks, places_of, take
from models.methods._image import ImageMethodOptions
from models.methods.masked._restoring import RestoringMethod
from models.registry import register


class SimMimOptions(ImageMethodOptions):
    image: BeitOptions = BeitOptions()
    """The image encoder."""
    mask_block: int = Bounded(32, ge=2)
    """Pixels of a side of what is hidden in one piece: a multiple of the patch."""
    mask_ratio: float = Bounded(0.6, gt=0, lt=1)
    """Share of these pieces that is hidden, rounded up to whole ones."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        block, size, patch = self.mask_block, self.image.image_size, self.image.patch
        if block % patch or size % block:
            both = f"a multiple of {where}.image.patch ({patch}) that divides {where}.image.image_size ({size})"
            yield f"{where}.mask_block: {block} is not {both}; use {patch}, or another such number"
            return
        G = (size // block) ** 2
        if not 0 < blocks_hidden(G, self.mask_ratio) < G:
            good = f"give a share up to {1 - 1 / G:.3g}" if G > 1 else f"give a smaller {where}.mask_block"
            yield f"{where}.mask_ratio: {self.mask_ratio} of {G} pieces of {block} pixels hides all; {good}"


@register("simmim")
class SimMim(RestoringMethod):
    """`image` (the encoder), `mask` (the vector in place of what is hidden) and `head`; pooled is the mean of the patch tokens."""

    Options = SimMimOptions
    paper = "Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022"
    official = (0.67, 1.0)
    options: SimMimOptions

    def __init__(self, options: SimMimOptions, schema: Schema):
        super().__init__(options, schema)
        dim, patch = options.image.dim, options.image.patch
        self.mask, self.head = MaskToken(dim), nn.Linear(dim, 3 * patch**2)
        self.enter("")

    def no_weight_decay(self) -> Iterable[str]:
        """Class token and positions; mask token and relative positions decay, as in the published code."""
        return [n for n, _ in self.named_parameters() if n.endswith(("pos_embed", "cls_token"))]

    def hides(self, rng: np.random.Generator) -> np.ndarray:
        """1 for a hidden patch, else 0."""
        o = self.options
        return drawn_blocks(self.image.grid, o.mask_block // o.image.patch, o.mask_ratio, rng).astype(np.uint8)

    def gap(self, made_BMP: Tensor, target_BMP: Tensor) -> Tensor:
        return (made_BMP - target_BMP).abs().mean(-1)

    def _restored(self, pixels_BCHW: Tensor, hidden_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BND = self.image.patch_embed(pixels_BCHW.to(self.dtype))
        tokens_BLD = self.image(self.mask(x_BND, hidden_BN), unplaced=True)
        masked_BM = places_of(hidden_BN)
        made_BMP = self.head(take(tokens_BLD[:, self._extra :], masked_BM)).float()
        # The head's values are (colour, row, column), as published; targets are (row, column, colour).
        return tokens_BLD, made_BMP.unflatten(-1, (3, -1)).mT.flatten(2), masked_BM

"""What systems share that hide blocks of patches of BEiT's transformer by one learned vector (SimMIM, mc-BEiT).

Shape letters: B images, N patches, M hidden ones, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Schema
from models.encoders.beit import BeitOptions
from models.layers.patches import MaskToken, blocks_hidden, drawn_blocks
from models.methods._image import ImageMethodOptions
from models.methods.masked._restoring import DrawnMethod


class BlockOptions(ImageMethodOptions):
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


class BlockMethod(DrawnMethod):
    """Base: `image` (the encoder) and `mask` (the vector in place of what is hidden)."""

    options: BlockOptions

    def __init__(self, options: BlockOptions, schema: Schema):
        super().__init__(options, schema)
        self.mask = MaskToken(options.image.dim)

    def no_weight_decay(self) -> Iterable[str]:
        """Class token and positions; mask token and relative positions decay, as in the published code."""
        return [n for n, _ in self.named_parameters() if n.endswith(("pos_embed", "cls_token"))]

    def hides(self, rng: np.random.Generator) -> np.ndarray:
        """1 for a hidden patch, else 0."""
        o = self.options
        return drawn_blocks(self.image.grid, o.mask_block // o.image.patch, o.mask_ratio, rng).astype(np.uint8)

    def _seen(self, pixels_BCHW: Tensor, hidden_BN: Tensor) -> Tensor:
        """Tokens of all places, [B, L, D], made without a look at hidden ones."""
        x_BND = self.image.patch_embed(pixels_BCHW.to(self.dtype))
        tokens_BLD: Tensor = self.image(self.mask(x_BND, hidden_BN), unplaced=True)
        return tokens_BLD

"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al. 2022, arXiv 2111.06377).

Three quarters of an image's patches are hidden; a vision transformer sees the rest, and a light decoder restores the pixels of
what was hidden. The deployed encoder sees whole images.

Shape letters: B images, N patches, K kept and M masked ones, P values of a patch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Schema
from models.decoders.image import MaskedImageDecoder
from models.encoders.vit import ViTOptions
from models.layers.patches import mask_order, ratio_problems
from models.methods._image import ImageMethodOptions
from models.methods.masked._restoring import RestoringMethod
from models.registry import register


class MaeOptions(ImageMethodOptions):
    image: ViTOptions = ViTOptions()
    """The image encoder, which has a class token."""
    mask_ratio: float = Bounded(0.75, gt=0, lt=1)
    """Share of patches hidden."""
    norm_pix: bool = True
    """Restore patches that are standardised one by one, or normalised pixels as they are."""
    decoder_dim: int = Bounded(512, ge=4)
    """Width of the decoder."""
    decoder_depth: int = Bounded(8, ge=1)
    """Its blocks."""
    decoder_heads: int = Bounded(16, ge=1)
    """Its attention heads."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not self.image.cls_token:
            yield f"{where}.image.cls_token: the decoder expects a class token; set it to true"
        if self.decoder_dim % self.decoder_heads:
            yield f"{where}.decoder_dim: {self.decoder_dim} is not a multiple of {where}.decoder_heads ({self.decoder_heads}); make it one"
        if self.decoder_dim % 4:
            yield f"{where}.decoder_dim: {self.decoder_dim} is not a multiple of 4, which its positions need"
        N = (self.image.image_size // self.image.patch) ** 2
        yield from ratio_problems(f"{where}.mask_ratio", self.mask_ratio, N)


@register("mae")
class Mae(RestoringMethod):
    """`image` (the encoder) and `decoder`; pooled is the mean of the patch tokens."""

    Options = MaeOptions
    paper = "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022"
    official = (0.2, 1.0)
    options: MaeOptions

    def __init__(self, options: MaeOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        self.standardised, self.values = o.norm_pix, 3 * o.image.patch**2
        self.decoder = MaskedImageDecoder(
            o.image.dim, self.image.grid, o.decoder_dim, o.decoder_depth, o.decoder_heads, self.values
        )
        self.enter("")

    def chance(self, batch_size: int) -> dict[str, float]:
        """The variance of a standardised patch, which is unbiased (blank patches have less)."""
        return {"image": 1.0 - 1.0 / self.values} if self.options.norm_pix else {}

    def hides(self, rng: np.random.Generator) -> np.ndarray:
        """Noise; the patches with the largest are hidden."""
        return rng.random(self.image.patches, np.float32)

    def gap(self, made_BMP: Tensor, target_BMP: Tensor) -> Tensor:
        return (made_BMP - target_BMP).square().mean(-1)

    def _restored(self, pixels_BCHW: Tensor, noise_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep_BK, masked_BM = mask_order(noise_BN, self.options.mask_ratio)
        tokens_BLD = self.image(pixels_BCHW.to(self.dtype), keep_BK)
        return tokens_BLD, self.decoder(tokens_BLD, keep_BK, masked_BM).float(), masked_BM

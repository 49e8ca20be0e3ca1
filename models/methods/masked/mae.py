"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al. 2022, arXiv 2111.06377).

Three quarters of an image's patches are hidden; a vision transformer sees the rest, and a light decoder restores the pixels of
what was hidden. The deployed encoder sees whole images.

Shape letters: B images, N patches, K kept and M masked ones, P values of a patch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, Output, Record, Sample, Schema, Stage
from models.decoders.image import MaskedImageDecoder
from models.decoders.mae import patchify, unpatchify
from models.encoders.vit import ViTOptions
from models.layers.patches import kept, mask_order, pasted, standardise, take
from models.methods._image import ImageMethod, ImageMethodOptions
from models.parallel import global_mean
from models.pictures import first
from models.registry import register
from models.transforms.image import to_pixels
from models.transforms.views import Views

# Of the image's area: the published crop, and one that rarely cuts a finding off. Neither changes a colour.
OFFICIAL, MILD = (0.2, 1.0), (0.5, 1.0)


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
        if not 0 < kept(N, self.mask_ratio) < N:
            good = f"give a share between {1 / N:.3g} and {1 - 1 / N:.3g}"
            yield f"{where}.mask_ratio: {self.mask_ratio} of {N} patches hides all or none; {good}"


@register("mae")
class Mae(ImageMethod):
    """`image` (the encoder) and `decoder`; pooled is the mean of the patch tokens."""

    Options = MaeOptions
    paper = "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022"
    by_class = False
    options: MaeOptions

    def __init__(self, options: MaeOptions, schema: Schema):
        super().__init__(options, schema)
        o, size = options, options.image.image_size
        self.values = 3 * o.image.patch**2
        self.decoder = MaskedImageDecoder(
            o.image.dim, self.image.grid, o.decoder_dim, o.decoder_depth, o.decoder_heads, self.values
        )
        crop = o.crop_scale or (OFFICIAL if o.views == "official" else MILD)
        self.drawn = Views(
            "paper" if o.views == "paper" else "crop", size, count=1, scale=None if o.views == "paper" else crop
        )
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", self.inputs, epochs=200),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: whole images, no decoder."""
        super().enter(stage)
        for name, p in self.named_parameters():
            p.requires_grad_(stage == "pretrain" or name.startswith("image."))

    def no_weight_decay(self) -> Iterable[str]:
        """Learned positions; class and mask token decay, as in the published code."""
        return [n for n, _ in self.named_parameters() if n.endswith("pos_embed")]

    def chance(self, batch_size: int) -> dict[str, float]:
        """The variance of a standardised patch, which is unbiased (blank patches have less)."""
        return {"image": 1.0 - 1.0 / self.values} if self.options.norm_pix else {}

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """In pre-training also `noise` [N], whose order says what is hidden."""
        made = super().sample(record, rng)
        if self.stage:
            made.arrays["noise"] = rng.random(self.image.patches, np.float32)
        return made

    def forward(self, batch: Batch) -> Output:
        pixels_BCHW = self.pixels(batch["views"][:, 0])
        tokens_BLD, made_BMP, masked_BM = self._restored(pixels_BCHW, batch["noise"])
        target_BMP = self.targets(pixels_BCHW, masked_BM)[0]
        error_BM = (made_BMP - target_BMP).square().mean(-1)
        weight_B1 = self.weight(batch)[:, None]
        count = weight_B1.sum() * masked_BM.shape[1]
        loss = global_mean((error_BM * weight_B1).sum(), count)
        with torch.no_grad():
            # The loss of the best constant answer: what knowing nothing of the image costs.
            mean, square = (global_mean((x_BM * weight_B1).sum(), count) for x_BM in _moments(target_BMP))
        features = {"image": tokens_BLD[:, 1:].mean(1).detach()}
        return Output({"image": loss}, loss, {"image_baseline": square - mean.square()}, features)

    def _restored(self, pixels_BCHW: Tensor, noise_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of what is seen [B, 1 + K, D], what is made of the rest [B, M, P] in float32, and which that is [B, M]."""
        keep_BK, masked_BM = mask_order(noise_BN, self.options.mask_ratio)
        tokens_BLD = self.image(pixels_BCHW.to(self.dtype), keep_BK)
        return tokens_BLD, self.decoder(tokens_BLD, keep_BK, masked_BM).float(), masked_BM

    def targets(self, pixels_BCHW: Tensor, masked_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What to restore, [B, M, P], and the mean and deviation that lead back to normalised pixels."""
        x_BMP = take(patchify(pixels_BCHW, self.options.image.patch), masked_BM)
        return standardise(x_BMP) if self.options.norm_pix else (x_BMP, x_BMP.new_zeros(1), x_BMP.new_ones(1))

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`reconstruction`, a row a sample: the image, what the encoder saw of it, what the decoder made of the rest.

        Restored patches get the mean and deviation of the true ones back, without which standardised patches have no colour.
        """
        few, patch = first(batch), self.options.image.patch
        pixels_BCHW = self.pixels(few["views"][:, 0])
        _, made_BMP, masked_BM = self._restored(pixels_BCHW, few["noise"])
        _, mean, std = self.targets(pixels_BCHW, masked_BM)
        whole_BNP = patchify(pixels_BCHW, patch)
        seen_BNP = pasted(whole_BNP, masked_BM, torch.zeros_like(made_BMP))
        columns = (whole_BNP, seen_BNP, pasted(whole_BNP, masked_BM, made_BMP * std + mean))
        rows_BCHW = torch.cat([unpatchify(x, patch, self.image.grid) for x in columns], 3)
        return {"reconstruction": np.concatenate(list(to_pixels(rows_BCHW)), 0)}


def _moments(x_BMP: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean square of every patch."""
    return x_BMP.mean(-1), x_BMP.square().mean(-1)

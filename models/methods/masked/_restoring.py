"""What systems share that hide patches of an image and restore their values, each patch on its own (MAE, SimMIM).

Shape letters: B images, N patches, M hidden ones, P values of a patch (row, column, colour), L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch, Output, Record, Sample, Schema, Stage
from models.decoders.mae import patchify, unpatchify
from models.layers.patches import pasted, standardise, take
from models.methods._image import ImageMethod, ImageMethodOptions
from models.parallel import global_mean
from models.pictures import first
from models.transforms.image import to_pixels
from models.transforms.views import Views

# Of the image's area: a crop that rarely cuts a finding off. No colour is changed.
MILD = (0.5, 1.0)


class HidingMethod(ImageMethod):
    """Base of systems that hide parts of an image: one view of it, and an encoder, `image`, that sees all of it when deployed."""

    by_class = False
    official: ClassVar[tuple[float, float]]
    """Share of the image's area in the published crop."""

    def __init__(self, options: ImageMethodOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        crop = o.crop_scale or (self.official if o.views == "official" else MILD)
        turned = o.views == "paper"
        self.drawn = Views("paper" if turned else "crop", self._size, count=1, scale=None if turned else crop)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", self.inputs, epochs=200),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: whole images, nothing that restores."""
        super().enter(stage)
        for name, p in self.named_parameters():
            p.requires_grad_(stage == "pretrain" or name.startswith("image."))

    def no_weight_decay(self) -> Iterable[str]:
        """Learned positions; class and mask token decay, as in MAE's published code."""
        return [n for n, _ in self.named_parameters() if n.endswith("pos_embed")]


class DrawnMethod(HidingMethod):
    """Base: a subclass draws, for each sample by itself, what is hidden (`hides`)."""

    def hides(self, rng: np.random.Generator) -> np.ndarray:
        """Numbers that say what is hidden, [N]."""
        raise NotImplementedError

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """In pre-training also `noise` [N], which says what is hidden."""
        made = super().sample(record, rng)
        if self.stage:
            made.arrays["noise"] = self.hides(rng)
        return made


class RestoringMethod(DrawnMethod):
    """Base: a subclass draws what is hidden (`hides`), restores it (`_restored`), and says what a gap costs (`gap`)."""

    standardised: bool = False
    """Patches are standardised one by one before they are compared."""

    def _restored(self, pixels_BCHW: Tensor, draw_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of what is seen [B, L, D], what is made of the rest [B, M, P] in float32, and which that is [B, M]."""
        raise NotImplementedError

    def gap(self, made_BMP: Tensor, target_BMP: Tensor) -> Tensor:
        """What each patch costs, [B, M]."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Output:
        pixels_BCHW = self.pixels(batch["views"][:, 0])
        tokens_BLD, made_BMP, masked_BM = self._restored(pixels_BCHW, batch["noise"])
        target_BMP = self.targets(pixels_BCHW, masked_BM)[0]
        loss, baseline = costs(self.gap, made_BMP, target_BMP, self.weight(batch))
        features = {"image": tokens_BLD[:, self._extra :].mean(1).detach()}
        return Output({"image": loss}, loss, {"image_baseline": baseline}, features)

    def targets(self, pixels_BCHW: Tensor, masked_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What to restore, [B, M, P], and the mean and deviation that lead back to normalised pixels."""
        x_BMP = take(patchify(pixels_BCHW, self.options.image.patch), masked_BM)  # type: ignore[union-attr]
        return standardise(x_BMP) if self.standardised else (x_BMP, x_BMP.new_zeros(1), x_BMP.new_ones(1))

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`reconstruction`, a row a sample: the image, what the encoder saw of it, what was made of the rest.

        Restored patches get the mean and deviation of the true ones back, without which standardised patches have no colour.
        """
        few, patch = first(batch), self.options.image.patch  # type: ignore[union-attr]
        pixels_BCHW = self.pixels(few["views"][:, 0])
        _, made_BMP, masked_BM = self._restored(pixels_BCHW, few["noise"])
        _, mean, std = self.targets(pixels_BCHW, masked_BM)
        rows_BCHW = beside(pixels_BCHW, made_BMP * std + mean, masked_BM, patch)
        return {"reconstruction": np.concatenate(list(to_pixels(rows_BCHW)), 0)}


def costs(
    gap: Callable[[Tensor, Tensor], Tensor], made_BMP: Tensor, target_BMP: Tensor, weight_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean of `gap` [B, M] over hidden patches of the images of all ranks that count; and, without gradient, what the mean of all values
    costs as the answer to everything: what knowing nothing of the image costs."""
    weight_B1 = weight_B[:, None]
    count = weight_B1.sum() * target_BMP.shape[1]

    def average(x_BM: Tensor) -> Tensor:
        return global_mean((x_BM * weight_B1).sum(), count)

    loss = average(gap(made_BMP, target_BMP))
    with torch.no_grad():
        return loss, average(gap(average(target_BMP.mean(-1)), target_BMP))


def beside(pixels_BCHW: Tensor, made_BMP: Tensor, masked_BM: Tensor, patch: int) -> Tensor:
    """Side by side in normalised pixels: the image, what the encoder saw of it, and that with what was made of the rest."""
    whole_BNP, H, W = patchify(pixels_BCHW, patch), *pixels_BCHW.shape[2:]
    seen_BNP = pasted(whole_BNP, masked_BM, torch.zeros_like(made_BMP))
    columns = (whole_BNP, seen_BNP, pasted(whole_BNP, masked_BM, made_BMP))
    return torch.cat([unpatchify(x, patch, (H // patch, W // patch)) for x in columns], 3)

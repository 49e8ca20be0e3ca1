"""Options of AttMask (method.py)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field as Bounded

from models.encoders.vit import ViTOptions
from models.methods._image import ImageMethodOptions
from models.transforms.views import LOCAL_SIZE


class AttMaskOptions(ImageMethodOptions):
    conventions: Literal["recommended", "published"] = "recommended"
    """Shares of hidden patches are drawn for each crop, positions of small crops lie where their places are, and tokens and positions take
    no weight decay; or, as in the official code, one share serves a whole batch, these positions are a little off, and tokens decay."""
    image: ViTOptions = ViTOptions(positions="learned", drop_path=0.1)
    """The image encoder, which has a class token. The teacher drops no path."""
    local_crops: int = Bounded(4, ge=0, le=64)
    """Small crops of an image (10 as published)."""
    local_size: int = Bounded(LOCAL_SIZE, ge=2)
    """Pixels of their side."""
    mask: Literal["hints", "high", "low", "random"] = "hints"
    """What is hidden: the patches that are looked at most, all of them (`high`) or with a few shown again (`hints`); those that are looked
    at least; or any."""
    ratio: tuple[float, float] = (0.1, 0.5)
    """Share of a crop's patches that is hidden: drawn between these."""
    mask_prob: float = Bounded(0.5, gt=0, le=1)
    """Share of the crops that have anything hidden."""
    show: float = Bounded(0.1, ge=0, le=1)
    """Hints: of this share of the patches, those that are looked at most, some are shown again; how many of them is drawn as `ratio` is."""
    out_dim: int = Bounded(8192, ge=2)
    """Outputs of the head (fewer for batches of a few images)."""
    hidden: int = Bounded(2048, ge=1)
    """Width inside the head."""
    bottleneck: int = Bounded(256, ge=1)
    """Width of its unit vectors."""
    share_head: bool = True
    """Class and patch tokens have the same outputs; otherwise the last layer is one for each."""
    student_temperature: float = Bounded(0.1, gt=0)
    """Temperature of the student's answers."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Temperature of the teacher's, at the start and after the warm-up."""
    temperature_warmup: float = Bounded(0.3, ge=0, le=1)
    """Share of the updates over which it grows (30 of 100 epochs as published)."""
    momentum: float = Bounded(0.996, ge=0, le=1)
    """Momentum of the teacher at the start; it grows to 1 along half a cosine."""
    centre_momentum: float = Bounded(0.9, ge=0, lt=1)
    """Momentum of the averages that are taken out of the teacher's outputs."""
    patch_weight: float = Bounded(1.0, ge=0)
    """Weight of the hidden patches' term beside the class tokens'."""
    freeze_last: float = Bounded(0.01, ge=0, le=1)
    """Share of the updates, the first ones, in which the last layer does not learn (one of 100 epochs as published)."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not self.image.cls_token:
            yield f"{where}.image.cls_token: the teacher's masks the patches; set it to true"
        low, high = self.ratio
        if not 0 <= low <= high < 1 or not high:
            yield f"{where}.ratio: {self.ratio} is no range of shares from 0 to below 1, with something hidden; give (0.1, 0.5), say"
        if min(self.teacher_temperature) <= 0:
            yield f"{where}.teacher_temperature: {self.teacher_temperature} holds no temperature above 0; give (0.04, 0.07), say"
        side, patch, size = self.local_size, self.image.patch, self.image.image_size
        if self.local_crops and (side % patch or side > size):
            near = min(size, max(1, round(side / patch)) * patch)
            good = f"a multiple of {where}.image.patch ({patch}) up to {where}.image.image_size ({size})"
            yield f"{where}.local_size: {side} is not {good}; use {near}"

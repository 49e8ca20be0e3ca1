"""AttMask: What to Hide from Your Students (Kakogeorgiou et al. 2022, arXiv 2203.12719), on iBOT (Zhou et al. 2022, arXiv 2111.07832).

A student learns from its own moving average. It sees two large crops of an image with patches hidden, and small crops. Its class token is
to answer for every crop as the teacher's does for a large one, and its tokens of hidden patches as the teacher's, which sees them. Hidden
is what the teacher's class token looks at most. docs/methods/attmask.md says what the published code does otherwise.

Shape letters: B samples, R = 2 B large crops (all first ones, then all second ones), V crops, N patches, M hidden ones of a batch,
L tokens, D encoder width, K outputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch, Output, Record, Sample, Schema, Stage
from models.heads.distillation import DistillationHead
from models.layers.attention_masks import hidden_first, shown_again
from models.layers.patches import MaskToken
from models.layers.vit_block import DropPath
from models.losses.distillation import Centre, told
from models.methods._image import ImageMethod
from models.methods._schedules import half_cosine, warmed
from models.methods.masked.attmask.options import AttMaskOptions
from models.parallel import gather, global_mean, total
from models.pictures import first, row_of_images
from models.registry import register
from models.transforms.views import Views

OFFSET = 0.1
"""In the published positions of small crops (models/encoders/positions.py)."""


@register("attmask")
class AttMask(ImageMethod):
    """Student: `image`, `mask` (the vector in place of what is hidden), `head`. Teacher, which only follows: `momentum_image`,
    `momentum_head`."""

    Options = AttMaskOptions
    paper = "Kakogeorgiou et al., What to Hide from Your Students: Attention-Guided Masked Image Modeling, ECCV 2022"
    by_class = True
    options: AttMaskOptions

    def __init__(self, options: AttMaskOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        kind: Literal["multi_crop", "mild", "paper"] = "multi_crop" if o.views == "official" else o.views
        self.drawn = Views(kind, self._size, scale=o.crop_scale, local=o.local_crops, local_size=o.local_size)
        self.image.other_sizes = OFFSET if o.conventions == "published" else 0.0
        self.mask = MaskToken(o.image.dim)
        torch.nn.init.zeros_(self.mask.mask_token)
        self.head = DistillationHead(o.image.dim, o.hidden, o.bottleneck, o.out_dim, o.share_head)
        self.momentum_image, self.momentum_head = copy.deepcopy(self.image), copy.deepcopy(self.head)
        for m in self.momentum_image.modules():
            if isinstance(m, DropPath):
                m.rate = 0.0
        self.class_centre, self.patch_centre = (Centre(o.out_dim, o.centre_momentum) for _ in range(2))
        self.at(0.0)
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", self.inputs, epochs=100),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: whole images, no head."""
        super().enter(stage)
        frozen = ("momentum_", *(() if stage else ("head.", "mask.")))
        for name, p in self.named_parameters():
            p.requires_grad_(not name.startswith(frozen))

    def at(self, done: float) -> None:
        o = self.options
        self.m = self._momentum(done)
        self.tau = warmed(*o.teacher_temperature, o.temperature_warmup, done)
        self.still = done < o.freeze_last

    def teachers(self, done: float) -> dict[str, tuple[str, float]]:
        m = self._momentum(done)
        return {"momentum_image": ("image", m), "momentum_head": ("head", m)}

    def _momentum(self, done: float) -> float:
        return half_cosine(self.options.momentum, 1.0, done)

    def no_weight_decay(self) -> Iterable[str]:
        if self.options.conventions == "published":
            return []
        spared = ("pos_embed", "cls_token", "mask_token")
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in spared]

    def chance(self, batch_size: int) -> dict[str, float]:
        """All outputs equal: ln K; of patches where a crop has any hidden."""
        most = math.log(self.options.out_dim)
        return {"class": most, "patch": self.options.mask_prob * most}

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """In pre-training `views` [2, H, W, 3] and `local` [V, h, w, 3]; and of each large crop the share that is hidden (`ratio`), that of
        the hints (`again`), whether any is (`kept`), [2] each, and `noise` [2, N]."""
        made, o = super().sample(record, rng), self.options
        if self.stage:
            made.arrays |= {n: rng.uniform(*o.ratio, 2).astype(np.float32) for n in ("ratio", "again")}
            made.arrays["kept"] = rng.random(2) < o.mask_prob
            made.arrays["noise"] = rng.random((2, self.image.patches), np.float32)
        return made

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch)
        x_RCHW = self._crops(batch["views"])
        class_RK, patch_RNK, looked_RN = self._teacher(x_RCHW)
        hidden_RN = self._hidden(looked_RN, batch)
        tokens_RLD = self._student(x_RCHW, hidden_RN)
        share_RK = self.class_centre(class_RK, self.tau)
        each = {
            "class": self._class_term(share_RK, self._answers(tokens_RLD, batch)),
            "patch": self._patch_term(patch_RNK, tokens_RLD, hidden_RN),
        }
        losses = {n: global_mean((x_B * weight_B).sum(), weight_B.sum()) for n, x_B in each.items()}
        if self.training:
            weight_R = weight_B.repeat(2)
            self.class_centre.follow(class_RK, weight_R)
            # All patches of a crop, hidden or not, as in the published code.
            self.patch_centre.follow(patch_RNK.mean(1), weight_R)
        diagnostics = self._diagnostics(share_RK, looked_RN, hidden_RN, weight_B)
        features = {"image": tokens_RLD[: len(weight_B), 0].detach()}
        return Output(losses, losses["class"] + o.patch_weight * losses["patch"], diagnostics, features)

    def _crops(self, views_BVHWC: Tensor) -> Tensor:
        """Pixels of all first crops, then of all second ones, and so on."""
        return self.pixels(views_BVHWC.transpose(0, 1).flatten(0, 1)).to(self.dtype)

    @torch.no_grad()
    def _teacher(self, x_RCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the class tokens [R, K] and of the patches [R, N, K] of whole crops, and how much each patch is looked at [R, N]."""
        tokens_RLD, looked_RN = self.momentum_image.tokens_and_class_row(x_RCHW)
        return self.momentum_head(tokens_RLD[:, 0]), self.momentum_head(tokens_RLD[:, 1:], patches=True), looked_RN

    def _student(self, x_RCHW: Tensor, hidden_RN: Tensor) -> Tensor:
        """Tokens of the large crops without what is hidden, [R, L, D]."""
        return self.image(self.mask(self.image.patch_embed(x_RCHW), hidden_RN), unplaced=True)

    def _answers(self, tokens_RLD: Tensor, batch: Batch) -> Tensor:
        """The student's outputs of the class tokens of all crops, [V, B, K], the large ones first."""
        class_VBD = tokens_RLD[:, 0].unflatten(0, (2, -1))
        if "local" in batch:
            local_VBD = self.image(self._crops(batch["local"]))[:, 0].unflatten(0, (-1, batch.size))
            class_VBD = torch.cat([class_VBD, local_VBD])
        return self.head(class_VBD, still=self.still)

    def _class_term(self, share_RK: Tensor, logits_VBK: Tensor) -> Tensor:
        """The mean over pairs of a teacher's large crop and another crop of the student's, [B]."""
        share_2BK, tau = share_RK.unflatten(0, (2, -1)), self.options.student_temperature
        pairs = [told(share_2BK[q], x_BK, tau) for q in range(2) for v, x_BK in enumerate(logits_VBK) if v != q]
        return torch.stack(pairs).mean(0)

    def _patch_term(self, patch_RNK: Tensor, tokens_RLD: Tensor, hidden_RN: Tensor) -> Tensor:
        """The mean over hidden patches of a crop (0 where none is), then over both crops, [B]."""
        share_MK = self.patch_centre(patch_RNK[hidden_RN], self.tau)
        logits_MK = self.head(tokens_RLD[:, 1:][hidden_RN], patches=True, still=self.still)
        each_M = told(share_MK, logits_MK, self.options.student_temperature)
        each_RN = torch.zeros(hidden_RN.shape, device=each_M.device).masked_scatter(hidden_RN, each_M)
        return (each_RN.sum(1) / hidden_RN.sum(1).clamp_min(1)).unflatten(0, (2, -1)).mean(0)

    # --------------------------------------------------------------------------------------------------------- masks

    def _hidden(self, looked_RN: Tensor, batch: Batch) -> Tensor:
        """What is hidden of the large crops, bool [R, N]."""
        o, N, noise_RN = self.options, looked_RN.shape[1], stacked(batch["noise"])
        score_RN = {"low": -looked_RN, "random": noise_RN}.get(o.mask, looked_RN)
        hidden_RN = hidden_first(score_RN, self._counts(batch, "ratio", N))
        if o.mask == "hints":
            most = o.show * N
            hidden_RN = hidden_RN & ~shown_again(looked_RN, noise_RN, int(most), self._counts(batch, "again", most))
        return hidden_RN & stacked(batch["kept"])[:, None]

    def _counts(self, batch: Batch, name: str, whole: float) -> Tensor:
        """The drawn share of each large crop in numbers of patches, rounded down, [R]."""
        share_R = stacked(batch[name])
        if self.options.conventions == "published":
            real_G = gather(self.weight(batch)) > 0
            share_R = gather(batch[name].contiguous())[real_G.int().argmax(), 0].expand(len(share_R))
        return (share_R * whole).long()

    @torch.no_grad()
    def _diagnostics(
        self, share_RK: Tensor, looked_RN: Tensor, hidden_RN: Tensor, weight_B: Tensor
    ) -> dict[str, Tensor]:
        weight_R, most = weight_B.repeat(2), math.log(self.options.out_dim)
        seen = {
            "teacher_entropy": entropy(share_RK),
            "attention_hidden": (looked_RN * hidden_RN).sum(1) / looked_RN.sum(1),
            "patch_chance": hidden_RN.any(1) * most,
        }
        found = {n: global_mean((x_R * weight_R).sum(), weight_R.sum()) for n, x_R in seen.items()}
        mean_K = total((share_RK * weight_R[:, None]).sum(0)) / total(weight_R.sum()).clamp_min(1)
        # 0 where every image gives one and the same output, ln K where all outputs are used alike.
        found["outputs_entropy"] = entropy(mean_K)
        return found | {n: mean_K.new_tensor(x) for n, x in (("momentum", self.m), ("teacher_temperature", self.tau))}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`hidden`: first large crops, and below them the same without what is hidden."""
        few = first(batch)
        _, looked_RN = self.momentum_image.tokens_and_class_row(self._crops(few["views"]))
        shown_BN = ~self._hidden(looked_RN, few)[: few.size]
        shown_BHW = shown_BN.unflatten(1, self.image.grid)
        for axis in (1, 2):
            shown_BHW = shown_BHW.repeat_interleave(self.image.patch, axis)
        view_BHWC = few["views"][:, 0]
        return {"hidden": np.concatenate([row_of_images(x) for x in (view_BHWC, view_BHWC * shown_BHW[..., None])])}


def stacked(x_B2: Tensor) -> Tensor:
    """Numbers of each sample's large crops in the order of crops, [B, 2, ...] -> [R, ...]."""
    return x_B2.transpose(0, 1).flatten(0, 1)


def entropy(share_NK: Tensor) -> Tensor:
    return torch.special.entr(share_NK).sum(-1)

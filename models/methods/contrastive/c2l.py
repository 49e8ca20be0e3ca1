"""C2L: Comparing to Learn (Zhou, Yu, Bian, Hu, Ma, Zheng 2020, MICCAI, arXiv 2007.07423).

Two views of each image, x1 for the student f and x2 for its moving average t. A feature of f is to find that of t among a queue of
earlier ones, three times: of the views (q1, k1); of views mixed with those of another image (qm, km); and of the mixed view and the mixed
features of t (qm, kf). The share of the mix is one number a batch.

Shape letters: B samples, G samples of all ranks, V views, H x W pixels, L tokens, D encoder width, C compared width, K places of the queue.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Output, Record, Sample, Schema, Stage
from models.encoders.image import ImageOptions
from models.encoders.resnet import ResNetOptions
from models.layers.batch_norm import counted
from models.methods.contrastive._views import ViewedMethod, ViewedOptions
from models.parallel import gather, global_mean, own_rows
from models.registry import register
from models.transforms.cutout import holes


class C2LOptions(ViewedOptions):
    image: ImageOptions = ResNetOptions(name="resnet18")
    """The image encoder."""
    views: Literal["films", "mild", "paper", "official"] = "films"  # type: ignore[assignment]
    """How views are drawn: as the system's own code does (`official`), without hue and saturation, which films do not have (`films`), with
    little change of colour (`mild`), or turned and mirrored alone, as Yang et al. 2023 state for all that they compare (`paper`)."""
    cutout: int = Bounded(3, ge=0, le=64)
    """Squares of a view that are set to the mean colour."""
    cutout_side: float = Bounded(1 / 7, gt=0, le=1)
    """Their side as a share of the view's (32 of 224 pixels)."""
    temperature: float = Bounded(0.07, gt=0)
    """Temperature tau of the similarities."""
    dim: int = Bounded(128, ge=1)
    """Width of the compared vectors."""
    queue: int = Bounded(16384, ge=1)
    """Places of the queue: the negatives of every term."""
    enqueue: Literal["once", "each"] = "once"
    """What enters the queue: the keys of the views after the step, so that every term sees the same queue; or, as in the official code,
    those of each term before the next one: an image's own keys are then among its negatives."""
    momentum: float = Bounded(0.999, ge=0, le=1)
    """Momentum of the average."""
    mix_alpha: float = Bounded(1.0, gt=0)
    """The mix's share is drawn from Beta(alpha, alpha) and the larger side taken."""


class Mix(NamedTuple):
    """One draw for the global batch: the share of a sample's own image, [] in [1/2, 1], and each sample's partner, [G]."""

    share: Tensor
    partner_G: Tensor


@register("c2l")
class C2L(ViewedMethod):
    """Student: `image`, `head`. Teacher: `momentum_image`, `momentum_head`, which only follow. The queue `keys` holds its features."""

    Options = C2LOptions
    paper = (
        "Zhou et al., Comparing to Learn: Surpassing ImageNet Pretraining on Radiographs by Comparing Image Representations, "
        "MICCAI 2020"
    )
    official: ClassVar = "c2l"
    options: C2LOptions

    def __init__(self, options: C2LOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        self.head = nn.Linear(self.image.width, o.dim)
        self.momentum_image, self.momentum_head = copy.deepcopy(self.image), copy.deepcopy(self.head)
        self.add_queue("keys", o.queue, o.dim, rows=3 if o.enqueue == "each" else 1)
        # As published it starts full of vectors of length about 1, so that the loss has its negatives from the first step on.
        self.get_buffer("queue_keys").uniform_(-math.sqrt(3 / o.dim), math.sqrt(3 / o.dim))
        self.get_buffer("queue_keys_valid").fill_(True)
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", self.inputs, self.options.order, compares=True, epochs=120),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: no views, no head."""
        super().enter(stage)
        frozen = ("momentum_", *(self.frozen(head_norm=False) if stage else ("head.",)))
        for name, p in self.named_parameters():
            p.requires_grad_(not name.startswith(frozen))

    def teachers(self, done: float) -> dict[str, tuple[str, float]]:
        m = self.options.momentum
        return {"momentum_image": ("image", m), "momentum_head": ("head", m)}

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln of the key and the queue."""
        return dict.fromkeys(("views", "mixed", "mixed_features"), math.log(self.options.queue + 1))

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """`views` [2, H, W, 3], the squares to cut out of them as `holes` [2, H, W], and two numbers that the batch's mix is made of."""
        sample, o = super().sample(record, rng), self.options
        if self.stage:
            size = o.image.image_size
            made = [holes(size, o.cutout, round(o.cutout_side * size), rng) for _ in range(2)]
            sample.arrays["holes"] = np.stack(made)
            sample.arrays["mix"] = np.array([rng.beta(o.mix_alpha, o.mix_alpha), rng.random()])
        return sample

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch)
        x1_BCHW, x2_BCHW = (self._cut(batch["views"][:, v], batch["holes"][:, v]) for v in range(2))
        mix = mixing(batch["mix"], weight_B)
        xm1_BCHW, xm2_BCHW = (self._mixed_views(batch, v, x, mix) for v, x in enumerate((x1_BCHW, x2_BCHW)))
        with counted(weight_B):
            q1_BC, pooled_BD = self._student(x1_BCHW)
            qm_BC, _ = self._student(xm1_BCHW)
            with torch.no_grad():
                t_BC, km_BC = self._teacher(x2_BCHW), unit(self._teacher(xm2_BCHW))
        k1_BC, kf_BC = unit(t_BC), unit(blend(t_BC, gather(t_BC)[own_rows(mix.partner_G)], mix.share))
        compared = {"views": (q1_BC, k1_BC), "mixed": (qm_BC, km_BC), "mixed_features": (qm_BC, kf_BC)}
        losses = self._terms(compared, weight_B)
        rows = torch.stack([k1_BC, km_BC, kf_BC], 1) if o.enqueue == "each" else k1_BC
        total = torch.stack(list(losses.values())).mean()
        diagnostics = {**self._diagnostics(q1_BC, k1_BC, weight_B), "mix_share": mix.share}
        return Output(losses, total, diagnostics, {"image": pooled_BD.detach()}, enqueue={"keys": (rows, weight_B)})

    def _cut(self, image_BHWC: Tensor, holes_BHW: Tensor) -> Tensor:
        """Pixels with the squares at 0, which after normalising is the mean colour."""
        return self.pixels(image_BHWC).to(self.dtype).masked_fill(holes_BHW[:, None] > 0, 0.0)

    def _mixed_views(self, batch: Batch, v: int, x_BCHW: Tensor, mix: Mix) -> Tensor:
        """Each view mixed with that of its partner, which may be on another rank: what is sent are bytes."""
        image_GHWC, holes_GHW = gather(batch["views"][:, v].contiguous()), gather(batch["holes"][:, v].contiguous())
        partner_B = own_rows(mix.partner_G)
        return blend(x_BCHW, self._cut(image_GHWC[partner_B], holes_GHW[partner_B]), mix.share)

    def _student(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features [B, C], and the encoder's vector that they were made of."""
        pooled_BD = self.pooled(self.image.tokens(x_BCHW))
        return unit(self.head(pooled_BD)), pooled_BD

    def _teacher(self, x_BCHW: Tensor) -> Tensor:
        """Features [B, C] of any length."""
        return self.momentum_head(self.pooled(self.momentum_image.tokens(x_BCHW)))

    def _terms(self, compared: Mapping[str, tuple[Tensor, Tensor]], weight_B: Tensor) -> dict[str, Tensor]:
        """Of each term its cross-entropy; where each one's keys enter at once, the next one finds them in the queue."""
        queue_KC, at = self.get_buffer("queue_keys").float(), int(self.get_buffer("queue_keys_at"))
        losses = {}
        for name, (q_BC, k_BC) in compared.items():
            losses[name] = self._found(q_BC, k_BC, queue_KC, weight_B)
            if self.options.enqueue == "each":
                new_NC = gather(k_BC)[gather(weight_B) > 0]
                places_N = (at + torch.arange(len(new_NC), device=new_NC.device)) % len(queue_KC)
                queue_KC, at = queue_KC.index_copy(0, places_N, new_NC), at + len(new_NC)
        return losses

    def _found(self, q_BC: Tensor, k_BC: Tensor, queue_KC: Tensor, weight_B: Tensor) -> Tensor:
        """-log of the share that the own key has in the softmax over it and the queue, the mean over all ranks."""
        own_B, others_BK = (q_BC * k_BC).sum(1), q_BC @ queue_KC.T
        logits_BN = torch.cat([own_B[:, None], others_BK], 1) / self.options.temperature
        each_B = logits_BN.logsumexp(1) - logits_BN[:, 0]
        return global_mean((each_B * weight_B).sum(), weight_B.sum())

    @torch.no_grad()
    def _diagnostics(self, q_BC: Tensor, k_BC: Tensor, weight_B: Tensor) -> dict[str, Tensor]:
        """Of the first term: how often the own key is nearer than the whole queue, and cosines."""
        own_B, others_BK = (q_BC * k_BC).sum(1), q_BC @ self.get_buffer("queue_keys").float().T
        values = {"top1": own_B > others_BK.amax(1), "cosine_positive": own_B, "cosine_negative": others_BK.mean(1)}
        return {n: global_mean((x_B.float() * weight_B).sum(), weight_B.sum()) for n, x_B in values.items()}


def mixing(draws_B2: Tensor, weight_B: Tensor) -> Mix:
    """The batch's mix out of two numbers of each sample, so that it is the same on any number of ranks.

    The share is the first number of the first sample that counts, or 1 minus it, whichever is larger; partners are a permutation of the
    samples that count, by the order of their second numbers. Others have themselves.
    """
    draws_G2, real_G = gather(draws_B2), gather(weight_B) > 0
    partner_G, real_N = torch.arange(len(real_G), device=real_G.device), real_G.nonzero()[:, 0]
    partner_G[real_N] = real_N[draws_G2[real_N, 1].argsort()]
    share = draws_G2[real_N[:1], 0].sum()  # of nobody: 0, and no partner takes part
    return Mix(torch.maximum(share, 1 - share).float(), partner_G)


def blend(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return (share * own.float() + (1 - share) * other.float()).to(own.dtype)


def unit(x_BC: Tensor) -> Tensor:
    return F.normalize(x_BC.float(), dim=-1)

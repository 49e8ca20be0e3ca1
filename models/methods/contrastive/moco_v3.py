"""MoCo v3: An Empirical Study of Training Self-Supervised Vision Transformers (Chen, Xie, He 2021, arXiv 2104.02057).

Two views of each image. The query of one view, through encoder, projector and predictor, is to find the key of the other view, made by
moving averages of encoder and projector, among the keys of the whole batch (algorithm 1). There is no queue. The momentum grows to 1
along a cosine, and a transformer's patch embedding stays at its random start (section 4.2).

Shape letters: B samples, L tokens, D encoder width, C compared width.
"""

from __future__ import annotations

import copy
import math

import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Group, Output, Schema, Stage
from models.encoders.vit import ViT
from models.heads.projection import ProjectionHead
from models.layers.batch_norm import counted
from models.losses.contrastive import Pairs, all_pairs, chance, one_way, retrieval
from models.methods._schedules import half_cosine
from models.methods.contrastive._views import PairedOptions, ViewedMethod
from models.registry import register


class MocoV3Options(PairedOptions):
    temperature: float = Bounded(0.2, gt=0)
    """Temperature tau of the similarities (1 for ResNet-50 in the official code)."""
    dim: int = Bounded(256, ge=1)
    """Width of the compared vectors."""
    mlp_dim: int = Bounded(4096, ge=1)
    """Width inside the projector and the predictor."""
    momentum: float = Bounded(0.99, ge=0, le=1)
    """Momentum of the averages at the start."""
    momentum_schedule: bool = True
    """It grows to 1 along half a cosine; otherwise it stays."""
    freeze_patch: bool | None = None  # type: ignore[assignment]
    """The patch embedding stays at its random start in pre-training; none given: yes in a vision transformer that starts from nothing."""
    decay_all: bool = False
    """Weight decay on biases, norms and tokens too, as in the official code."""


@register("moco_v3")
class MocoV3(ViewedMethod):
    """Queries: `image`, `projector`, `predictor`. Keys: `momentum_image`, `momentum_projector`, which only follow."""

    Options = MocoV3Options
    paper = "Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021"
    official = "moco_v3"
    options: MocoV3Options

    def __init__(self, options: MocoV3Options, schema: Schema):
        super().__init__(options, schema)
        o, D = options, self.image.width
        if isinstance(self.image, ViT) and o.image.init == "scratch":
            start_as_published(self.image)
        cnn = not isinstance(self.image, ViT)
        # A ResNet's projector has a layer less, and its predictor ends without a norm (and, as all its layers, without a bias).
        self.projector = ProjectionHead(D, o.mlp_dim, o.dim, 2 if cnn else 3, last="plain")
        self.predictor = ProjectionHead(o.dim, o.mlp_dim, o.dim, 2, last="none" if cnn else "plain")
        if cnn:
            self.predictor.layers[-1].register_parameter("bias", None)
        self.momentum_image, self.momentum_projector = copy.deepcopy(self.image), copy.deepcopy(self.projector)
        self.at(0.0)
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", self.inputs, self.options.order, compares=True, epochs=50),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: no views, no heads."""
        super().enter(stage)
        frozen = ("momentum_", *(self.frozen(head_norm=True) if stage else ("projector.", "predictor.")))
        for name, p in self.named_parameters():
            p.requires_grad_(not name.startswith(frozen))

    def frozen(self, head_norm: bool) -> tuple[str, ...]:
        """With the patch embedding, unless it was learned elsewhere (section 4.2)."""
        o, names = self.options, super().frozen(head_norm)
        by_default = o.freeze_patch is None and o.image.kind == "vit" and o.image.init == "scratch"
        return (*names, "image.patch_embed.") if by_default else names

    def at(self, done: float) -> None:
        self.m = self._momentum(done)

    def teachers(self, done: float) -> dict[str, tuple[str, float]]:
        m = self._momentum(done)
        return {"momentum_image": ("image", m), "momentum_projector": ("projector", m)}

    def _momentum(self, done: float) -> float:
        m = self.options.momentum
        return half_cosine(m, 1.0, done) if self.options.momentum_schedule else m

    def param_groups(self) -> list[Group]:
        if not self.options.decay_all:
            return super().param_groups()
        return [Group("all", [p for p in self.parameters() if p.requires_grad])]

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: 2 tau ln of the batch, for each of the two views."""
        return {"contrastive": 4 * self.options.temperature * math.log(max(2, batch_size))}

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch)
        x1_BCHW, x2_BCHW = (self.pixels(batch["views"][:, v]).to(self.dtype) for v in range(2))
        # Each view in a pass of its own: batch statistics are those of one view, of queries as of keys.
        with counted(weight_B):
            (q1_BC, pooled_BD), (q2_BC, _) = self._query(x1_BCHW), self._query(x2_BCHW)
            k1_BC, k2_BC = self._key(x1_BCHW), self._key(x2_BCHW)
        first, second = self._pairs(q1_BC, k2_BC, batch), self._pairs(q2_BC, k1_BC, batch)
        # The factor 2 tau keeps the gradient's size where tau is changed (algorithm 1).
        loss = 2 * o.temperature * (one_way(first) + one_way(second))
        return Output({"contrastive": loss}, loss, self._diagnostics(first), {"image": pooled_BD.detach()})

    def _query(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C], and the encoder's vector that it was made of."""
        pooled_BD = self.pooled(self.image.tokens(x_BCHW))
        return self.predictor(self.projector(pooled_BD)), pooled_BD

    @torch.no_grad()
    def _key(self, x_BCHW: Tensor) -> Tensor:
        return self.momentum_projector(self.pooled(self.momentum_image.tokens(x_BCHW)))

    def _pairs(self, q_BC: Tensor, k_BC: Tensor, batch: Batch) -> Pairs:
        o = self.options
        scale = q_BC.new_tensor(1 / o.temperature, dtype=torch.float32)
        return all_pairs(q_BC, k_BC, scale, self.weight(batch), batch["patient"], o.same_patient)

    def _diagnostics(self, pairs: Pairs) -> dict[str, Tensor]:
        found, tau = retrieval(pairs), self.options.temperature
        return {
            "top1": found["top1_a_to_b"],
            "cosine_positive": found["positive"] * tau,
            "cosine_negative": found["negative"] * tau,
            "contrastive_chance": 4 * tau * chance(pairs),
            "momentum": pairs.logits_GG.new_tensor(self.m),
        }


@torch.no_grad()
def start_as_published(vit: ViT) -> None:
    """Queries, keys and values are a Xavier-uniform matrix each, not one of all three; the class token is all but zero."""
    for name, p in vit.named_parameters():
        if name.endswith("attn.qkv.weight"):
            nn.init.uniform_(p, -math.sqrt(3 / p.shape[1]), math.sqrt(3 / p.shape[1]))
    if vit.cls_token is not None:
        nn.init.normal_(vit.cls_token, std=1e-6)

"""ABMIL: Attention-based Deep Multiple Instance Learning (Ilse et al., ICML 2018, arXiv 1802.04712).

A slide is a bag of patch features. Each is embedded, weighed by a small attention network (eq. 8, or gated, eq. 9), and the bag is the
weighted mean (eq. 7), on which a linear layer answers. It learns from a task's labels alone: there is nothing to pre-train.
docs/methods/abmil.md says where the official code differs from the paper and what `conventions` chooses.

Shape letters: B bags, N instances, F patch feature width, M embedded width, K outputs, T numbers of a target.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Head, HeadOutput, Options, Schema, TargetSpec
from models.heads.linear import LinearHead
from models.layers.bag_attention import BagAttention, pooled_rows, weights
from models.losses.finetune import clamped_bce
from models.methods.slides._bag import BagMethod
from models.registry import register

CLAMP = 1e-5
"""The published probability stays so far from 0 and 1."""


class AbmilOptions(Options):
    conventions: Literal["recommended", "published"] = "recommended"
    """Binary tasks: cross-entropy of the logit, or, as the official code has it, of the probability clamped to [1e-5, 1 - 1e-5], whose
    gradient is 0 beyond."""
    embed: int | None = Bounded(512, ge=1)
    """Width M that a patch is embedded to (Linear, ReLU); null: features are taken as they are."""
    gated: bool = False
    """Gated attention (eq. 9) in place of the plain one (eq. 8)."""
    hidden: int = Bounded(128, ge=1)
    """Width of the attention network."""
    dropout: float = Bounded(0.0, ge=0, lt=1)
    """Of the embedded patches; the paper has none."""


@register("abmil")
class Abmil(BagMethod):
    """Embedding and attention; the pooled vector is the bag's weighted mean z."""

    Options = AbmilOptions
    paper = "Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018"
    options: AbmilOptions

    def __init__(self, options: AbmilOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        width = o.embed or self.features
        self.embed = nn.Sequential(nn.Linear(self.features, width), nn.ReLU()) if o.embed else nn.Identity()
        self.drop = nn.Dropout(o.dropout)
        self.attention = BagAttention(width, o.hidden, 1, o.gated)

    def encode(self, batch: Batch) -> Encoded:
        """Tokens h [B, N, M], pooled z = sum of a_i h_i [B, M]; zero where a slide has no patches."""
        bags = self.rows(batch)
        h = bags.of(self.drop(self.embed(bags.rows_PD)))
        return Encoded.of_bags(h, pooled_rows(h, self.attention(h.rows_PD))[:, 0])

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """a of eq. 8 or 9."""
        x_BNF, mask_BN = self.bags(batch)
        return {"attention": weights(self.attention(self.drop(self.embed(x_BNF))), mask_BN)[..., 0]}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.attention,)

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """One linear layer on z, with PyTorch's first weights as in the official code."""
        if self.options.conventions == "published" and target.kind == "binary":
            return ClampedHead(pooled)
        return LinearHead(pooled, target.outputs, norm=False, std=None)


class ClampedHead(Head):
    """z [B, M] -> one logit, learned by -[y log P + (1 - y) log(1 - P)] of the clamped P in place of the task's own loss."""

    def __init__(self, in_dim: int):
        super().__init__()
        self.linear = LinearHead(in_dim, 1, norm=False, std=None)

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        logits_B1 = self.linear.score(encoded["pooled_BD"])
        if target_BT is None:
            return HeadOutput(logits_B1)
        assert weight_B is not None, "targets come with their weights"
        loss = clamped_bce(logits_B1, target_BT, weight_B, CLAMP)
        return HeadOutput(logits_B1, {"clamped": loss}, {"clamped": 1.0}, task_weight=0.0)

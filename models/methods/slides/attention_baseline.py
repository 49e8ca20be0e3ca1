"""A small attention baseline: gated attention over a slide's patches, of the size of FEATHER (Shao et al., ICML 2025, arXiv 2506.09022).

Shao et al. found that a bag classifier of 0.9 M parameters with the shape of ABMIL, begun from weights that were trained on many cancers,
rivals slide encoders that are a hundred times larger. This is that shape, begun from nothing: what every table of slide systems should show
beside them. docs/methods/attention_baseline.md says what it is not.

Shape letters: B bags, N instances, F patch feature width, D embedded width.
"""

from __future__ import annotations

from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Head, Options, Schema, TargetSpec
from models.heads.linear import LinearHead
from models.layers.bag_attention import BagAttention, pooled_rows, weights
from models.methods.slides._bag import BagMethod
from models.registry import register


class AttentionBaselineOptions(Options):
    embed: int = Bounded(512, ge=1)
    """Width D that a patch is embedded to (Linear, ReLU, dropout)."""
    hidden: int = Bounded(384, ge=1)
    """Width of the gated attention network."""
    dropout: float = Bounded(0.25, ge=0, lt=1)
    """Of the embedded patches."""
    attention_dropout: float = Bounded(0.25, ge=0, lt=1)
    """Inside the attention network."""


@register("attention_baseline")
class AttentionBaseline(BagMethod):
    """Embedding and gated attention; the pooled vector is the bag's weighted mean."""

    Options = AttentionBaselineOptions
    paper = "the size and shape of FEATHER: Shao et al., Do Multiple Instance Learning Models Transfer?, ICML 2025"
    options: AttentionBaselineOptions

    def __init__(self, options: AttentionBaselineOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        self.embed = nn.Sequential(nn.Linear(self.features, o.embed), nn.ReLU(), nn.Dropout(o.dropout))
        self.attention = BagAttention(o.embed, o.hidden, 1, True, o.attention_dropout)

    def encode(self, batch: Batch) -> Encoded:
        """Tokens h [B, N, D], pooled their weighted mean [B, D]; zero where a slide has no patches."""
        bags = self.rows(batch)
        h = bags.of(self.embed(bags.rows_PD))
        return Encoded.of_bags(h, pooled_rows(h, self.attention(h.rows_PD))[:, 0])

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Shares of the patches in the bag's mean."""
        x_BNF, mask_BN = self.bags(batch)
        return {"attention": weights(self.attention(self.embed(x_BNF)), mask_BN)[..., 0]}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.attention,)

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """One linear layer, with PyTorch's first weights."""
        return LinearHead(pooled, target.outputs, norm=False, std=None)

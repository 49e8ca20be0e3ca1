"""DSMIL: Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification (Li et al., CVPR 2021, arXiv 2011.08939).

A slide is a bag of patch features. One stream answers for each patch and takes the highest answer; the other averages all patches by
how alike their queries are to that patch's. Both learn the task's label, half and half. There is nothing to pre-train.
docs/methods/dsmil.md says where the official code differs from the paper and what `conventions` chooses.

Shape letters: B bags, N instances, F patch feature width, Q width of a query, V width of a value (0: the features themselves).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field as Bounded
from torch import nn

from models.contract import Batch, Encoded, Head, Options, Schema, TargetSpec
from models.heads.dual_stream import DualStreamHead, orthogonal
from models.methods.slides._bag import BagMethod
from models.registry import register


class DsmilOptions(Options):
    conventions: Literal["recommended", "published"] = "recommended"
    """Tasks of exclusive classes: softmax cross-entropy, or, as the official code has it, a separate yes or no for each class, so that both
    and neither are possible."""
    nonlinear: bool = True
    """Queries by Linear, ReLU, Linear, tanh; false: by one Linear."""
    pass_v: bool = False
    """Values by dropout, Linear, ReLU; false: the features themselves."""
    query: int = Bounded(128, ge=1)
    """Width of queries."""
    dropout: float = Bounded(0.0, ge=0, lt=1)
    """Before the values' layer (`pass_v`)."""
    max_weight: float = Bounded(0.5, ge=0, le=1)
    """Weight of the loss of the highest instance; the rest is the bag's."""
    init: Literal["orthogonal", "torch"] = "orthogonal"
    """First weights of all linear layers: orthogonal with biases 0, or PyTorch's own."""


@register("dsmil")
class Dsmil(BagMethod):
    """Queries and values; the streams, which need the task's classes, stand in the head."""

    Options = DsmilOptions
    paper = "Li et al., Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification, CVPR 2021"
    options: DsmilOptions

    def __init__(self, options: DsmilOptions, schema: Schema):
        super().__init__(options, schema)
        o, F = options, self.features
        self.query: nn.Module = nn.Linear(F, o.query)
        if o.nonlinear:
            self.query = nn.Sequential(self.query, nn.ReLU(), nn.Linear(o.query, o.query), nn.Tanh())
        self.value = nn.Sequential(nn.Dropout(o.dropout), nn.Linear(F, F), nn.ReLU()) if o.pass_v else None
        if o.init == "orthogonal":
            orthogonal(self)

    def encode(self, batch: Batch) -> Encoded:
        """Tokens [x ; q(x) ; v(x)] [B, N, F + Q + V]; pooled is their mean over real patches, for heads other than the method's own."""
        bags = self.rows(batch)
        x_PF = bags.rows_PD
        parts = [x_PF, self.query(x_PF), *([] if self.value is None else [self.value(x_PF)])]
        tokens = bags.of(torch.cat(parts, -1))
        return Encoded.of_bags(tokens, tokens.means())

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """Both streams of section 3.2."""
        o = self.options
        widths = (self.features, o.query, self.features if o.pass_v else 0)
        head = DualStreamHead(target, widths, o.max_weight, o.conventions == "published")
        if o.init == "orthogonal":
            orthogonal(head)
        return head

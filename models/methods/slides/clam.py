"""CLAM: data-efficient and weakly supervised computational pathology on whole-slide images (Lu et al., Nat. Biomed. Eng. 2021).

A slide is a bag of patch features, pooled by gated attention with one branch for all classes (CLAM-SB) or one for each (CLAM-MB). Besides
the bag's label, the patches of highest and lowest attention are told apart by a small classifier of each class. It learns from a task's
labels alone: there is nothing to pre-train. docs/methods/clam.md says where the official code differs from the paper.

Shape letters: B bags, N instances, F patch feature width, D embedded width.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field as Bounded
from torch import nn

from models.contract import Batch, Encoded, Head, Options, Schema, TargetSpec
from models.heads.clam import ClamHead, Clustering, classes_of
from models.layers.bag_attention import BagAttention
from models.methods.slides._bag import BagMethod
from models.registry import register

PUBLISHED_DROPOUT = 0.25
"""Of the published attention network, whenever there is dropout at all."""


class ClamOptions(Options):
    conventions: Literal["recommended", "published"] = "recommended"
    """`published`: in a bag of fewer than 2 k patches some are both of the highest and of the lowest group, with opposite targets, and the
    attention network drops .25 whenever `dropout` is above 0. `recommended`: no patch is in both groups; `attention_dropout` counts."""
    branches: Literal["single", "multi"] = "single"
    """One attention branch for all classes (CLAM-SB), or one for each (CLAM-MB)."""
    gated: bool = True
    """Gated attention, or plain."""
    embed: int = Bounded(512, ge=1)
    """Width that a patch is embedded to (Linear, ReLU)."""
    hidden: int = Bounded(256, ge=1)
    """Width of the attention network; the published size "big" has 384."""
    k: int = Bounded(8, ge=1)
    """Patches of highest attention, and of lowest, in the instance loss; fewer in small bags."""
    inst_loss: Literal["svm", "ce", "none"] = "svm"
    """Instance loss: smooth margin loss (the paper), cross-entropy, or none."""
    subtyping: bool = True
    """Patches of high attention are negatives for the classes that the slide is not of; for classes that exclude each other."""
    bag_weight: float = Bounded(0.7, ge=0, le=1)
    """Weight of the bag's loss; the rest is the instances'."""
    dropout: float = Bounded(0.25, ge=0, lt=1)
    """Of the embedded patches."""
    attention_dropout: float = Bounded(0.25, ge=0, lt=1)
    """Inside the attention network (`conventions: recommended`)."""


@register("clam")
class Clam(BagMethod):
    """The embedding; attention and classifiers, which need the task's classes, stand in the head."""

    Options = ClamOptions
    paper = "Lu et al., Data-efficient and weakly supervised computational pathology on whole-slide images, Nat. Biomed. Eng. 2021"
    options: ClamOptions

    def __init__(self, options: ClamOptions, schema: Schema):
        super().__init__(options, schema)
        self.embed = nn.Sequential(nn.Linear(self.features, options.embed), nn.ReLU(), nn.Dropout(options.dropout))

    def encode(self, batch: Batch) -> Encoded:
        """Tokens h [B, N, D]; pooled is their mean over real patches, for heads other than the method's own."""
        bags = self.rows(batch)
        h = bags.of(self.embed(bags.rows_PD))
        return Encoded.of_bags(h, h.means())

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """Attention, the bag's classifiers and those of the instances."""
        o = self.options
        published = o.conventions == "published"
        dropout = o.attention_dropout
        if published:
            dropout = PUBLISHED_DROPOUT if o.dropout > 0 else 0.0
        branches = classes_of(target) if o.branches == "multi" else 1
        attention = BagAttention(o.embed, o.hidden, branches, o.gated, dropout)
        clustering = None if o.inst_loss == "none" else Clustering(o.inst_loss, o.k, o.subtyping, not published)
        return ClamHead(attention, o.embed, target, o.bag_weight, clustering)

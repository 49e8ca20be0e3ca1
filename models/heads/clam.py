"""CLAM's bag classifier and instance clustering (Lu et al., Nature Biomedical Engineering 2021).

Shape letters: B bags, N instances of the longest bag, D width of an instance, K outputs, C exclusive classes, A attention branches, k
picked instances.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.contract import Encoded, Head, HeadOutput, TargetSpec
from models.contract.bags import Bags
from models.layers.bag_attention import BagAttention, pooled_rows, weights
from models.losses.instances import picked, two_way
from models.parallel import global_mean


class Clustering(NamedTuple):
    """How instances are picked and judged. `others`: those of classes that the bag is not of, too; `apart`: no instance in two groups."""

    loss: Literal["svm", "ce"]
    k: int
    others: bool
    apart: bool


class _Group(NamedTuple):
    """Mean loss [B] of a bag's picked instances, and how many are judged as they should be [B]."""

    loss_B: Tensor
    right_B: Tensor


class ClamHead(Head):
    """Tokens of bags -> K outputs by attention with one branch, or one a class; term `instance` where classes exclude each other.

    A binary task has two classes, as in the paper, and says the difference of their outputs. Tasks of other kinds have no instance term.
    """

    def __init__(
        self, attention: BagAttention, width: int, asked: TargetSpec, bag_weight: float, clustering: Clustering | None
    ):
        super().__init__()
        self.asked, self.bag_weight, self.attention = asked, bag_weight, attention
        C = classes_of(asked)
        several = attention.weigh.out_features > 1
        self.bag = nn.ModuleList(nn.Linear(width, 1) for _ in range(C)) if several else nn.Linear(width, C)
        exclusive = asked.kind in ("binary", "multiclass")
        self.clustering = clustering if exclusive else None
        self.instance = nn.ModuleList(nn.Linear(width, 2) for _ in range(C if self.clustering else 0))

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        h = encoded.bags()
        score = h.of(self.attention(h.rows_PD))
        logits_BK = self._answers(pooled_rows(h, score.rows_PD))
        if target_BT is None or self.clustering is None:
            return HeadOutput(logits_BK)
        assert weight_B is not None, "targets come with their weights"
        term, right_B = self._clustered(h, score, target_BT[:, 0], weight_B.float())
        rest = {"instance": 1 - self.bag_weight}
        return HeadOutput(logits_BK, {"instance": term}, rest, self.bag_weight, {"instance_accuracy": right_B})

    def attention_maps(self, encoded: Encoded) -> dict[str, Tensor]:
        """Of the one branch, or of each class's."""
        weight_BNA = weights(self.attention(encoded["tokens_BLD"]), encoded["mask_BL"])
        names: tuple[str, ...] = ("attention",)
        if weight_BNA.shape[-1] > 1:
            names = self.asked.classes if self.asked.kind == "binary" else self.asked.names
        return {name: weight_BNA[..., i] for i, name in enumerate(names)}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.attention,)

    def _answers(self, bag_BAD: Tensor) -> Tensor:
        if isinstance(self.bag, nn.ModuleList):
            each_BC = torch.cat([one(bag_BAD[:, c]) for c, one in enumerate(self.bag)], 1)
        else:
            each_BC = self.bag(bag_BAD[:, 0])
        return each_BC[:, 1:] - each_BC[:, :1] if self.asked.kind == "binary" else each_BC

    def _clustered(self, h: Bags, score: Bags, class_B: Tensor, weight_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over the bags of the global batch that have instances enough and a known class; and of each bag [B] the share of its picked
        instances that are judged as they should be, NaN where none is."""
        assert self.clustering is not None
        _, k, others, apart = self.clustering
        # Scores alone are filled up, one or a few numbers an instance, so that all bags are picked from at once.
        score_BNA, mask_BN = score.padded(), h.mask()
        real_B = mask_BN.sum(1)
        count_B = (real_B // 2 if apart else real_B).clamp_max(k)
        loss_B, right_B, judged_B = (torch.zeros_like(weight_B) for _ in range(3))
        for c, judge in enumerate(self.instance):
            inside_B = (class_B == c).float()
            score_BN = score_BNA[..., c if score_BNA.shape[-1] > 1 else 0]
            high, low = (picked(score_BN, mask_BN, count_B, k, highest) for highest in (True, False))
            own_high, own_low = (self._group(judge, h, *g, g is high) for g in (high, low))
            loss_B = loss_B + inside_B * (own_high.loss_B + own_low.loss_B) / 2
            right_B = right_B + inside_B * (own_high.right_B + own_low.right_B)
            judged_B = judged_B + inside_B * 2 * count_B
            if others:
                strange = self._group(judge, h, *high, False)
                loss_B = loss_B + (1 - inside_B) * strange.loss_B
                right_B, judged_B = right_B + (1 - inside_B) * strange.right_B, judged_B + (1 - inside_B) * count_B
        if others:
            loss_B = loss_B / len(self.instance)
        has_B = weight_B * (count_B > 0) * ~class_B.isnan()
        share_B = torch.where(judged_B > 0, right_B / judged_B, torch.nan).masked_fill(class_B.isnan(), torch.nan)
        return global_mean((loss_B * has_B).sum(), has_B.sum()), share_B

    def _group(self, judge: nn.Module, h: Bags, place_Bk: Tensor, counts_Bk: Tensor, positive: bool) -> _Group:
        """How the picked instances of each bag are judged, when they are to be judged so; zeros without any."""
        assert self.clustering is not None
        said_Bk2 = judge(h.at(place_Bk))
        each_Bk = two_way(said_Bk2, positive, self.clustering.loss) * counts_Bk
        right_Bk = ((said_Bk2[..., 1] > said_Bk2[..., 0]) == positive) * counts_Bk
        return _Group(each_Bk.sum(1) / counts_Bk.sum(1).clamp_min(1), right_Bk.sum(1).float())


def classes_of(asked: TargetSpec) -> int:
    """Outputs of the bag's classifiers: two for a binary task."""
    return 2 if asked.kind == "binary" else asked.outputs

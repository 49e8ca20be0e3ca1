"""Weighted nearest neighbours on cached features: what an encoder knows without any fitting.

A training sample votes with exp(cosine / temperature); temperature 0.07, as in Wu et al., "Unsupervised feature learning via
non-parametric instance discrimination", CVPR 2018, section 3.4. A number is the plain mean over the neighbours. The number of
neighbours is chosen on the validation split.

Shape letters: N samples asked about, M training samples, D width, J neighbours, C classes, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.downstream.probes.given import Score, check_features, checked, evaluated
from trainer.engine.choice import chosen
from trainer.errors import UserError

KS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07
QUERIES, BASES = 1024, 8192  # similarities in memory at a time: 32 MB


@dataclass(frozen=True)
class KnnFit:
    """The training split as a classifier.

    k, val        the number of neighbours chosen, and its value on the validation split
    grid_values   {"k", "val"} of every k that was tried; "val" is None where the metric has no value
    """

    kind: str
    k: int
    val: float
    grid_values: list[dict[str, Any]]
    temperature: float
    searched: int = field(repr=False)
    base_MD: Tensor = field(repr=False)
    votes_MK: Tensor = field(repr=False)
    flat: bool = field(repr=False)
    val_loss: float | None = None

    def predict(self, x: np.ndarray | Tensor) -> np.ndarray:
        """Scores of features [N, D], in the convention of `Predictions` for the kind."""
        x_ND = check_features(x, "features", self.base_MD.shape[1])
        # As many are looked for as in the choice of k: among equally near ones the same are taken.
        cosine_NJ, index_NJ = neighbours(x_ND, self.base_MD, self.searched)
        return self.scores(cosine_NJ[:, : self.k], index_NJ[:, : self.k])

    def scores(self, cosine_NJ: Tensor, index_NJ: Tensor) -> np.ndarray:
        """Mean vote of given neighbours, [N, K] or [N]."""
        chunks = zip(cosine_NJ.split(QUERIES), index_NJ.split(QUERIES), strict=True)
        out_NK = torch.cat([self._mean_vote(c, self.votes_MK[i]) for c, i in chunks])
        return (out_NK[:, 0] if self.kind in ("binary", "regression") and self.flat else out_NK).numpy()

    def _mean_vote(self, cosine_NJ: Tensor, votes_NJK: Tensor) -> Tensor:
        """Weighted mean over the neighbours that know the answer; where none does, the mean over all training samples."""
        known_NJK = ~votes_NJK.isnan()
        if self.kind == "regression":
            weight_NJK = known_NJK.double()
        else:
            # Relative to the nearest one, so that the temperature may be small.
            weight_NJK = ((cosine_NJ - cosine_NJ[:, :1]).double() / self.temperature).exp()[..., None] * known_NJK
        total_NK = weight_NJK.sum(1)
        mean_NK = (weight_NJK * votes_NJK.nan_to_num()).sum(1) / total_NK
        return torch.where(total_NK > 0, mean_NK, self.votes_MK.nanmean(0))


def fit_knn(
    kind: str,
    x_train: np.ndarray | Tensor,
    y_train: np.ndarray,
    x_val: np.ndarray | Tensor,
    y_val: np.ndarray,
    *,
    score: Score,
    loss: Score | None = None,
    higher_is_better: bool = True,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    classes: int | None = None,
) -> KnnFit:
    """Chooses the number of neighbours on the validation split; of equal values the smaller loss, of equal losses the fewest.

    Args:
        x_train, x_val: [N, D]; only their direction counts.
        y_train, y_val: targets as in `Predictions`; unknown ones (NaN) of multilabel and regression do not vote.
        score: (scores, targets) of the validation split -> the metric that chooses; NaN means it has no value.
        ks: numbers of neighbours to try; those above the number of training samples are left out.
        classes: number of classes or grades, where the training split may lack the last one.

    Raises:
        UserError: survival (neighbours have no risk); features or targets that cannot be used; no k with a value.
    """
    if kind == "survival":
        raise UserError("k-NN has no survival: neighbours give no log risk; use mode linear or finetune")
    base_MD, x_ND, y, classes = checked(kind, x_train, y_train, x_val, y_val, classes)
    tried = _tried(ks, temperature, len(base_MD))
    votes_MK = _votes(kind, y, classes)
    fit = KnnFit(
        kind, tried[-1], math.nan, [], temperature, tried[-1], F.normalize(base_MD.float()), votes_MK, y.ndim == 1
    )
    cosine_NJ, index_NJ = neighbours(x_ND, fit.base_MD, fit.searched)
    looks = [evaluated(fit.scores(cosine_NJ[:, :k], index_NJ[:, :k]), y_val, score, loss) for k in tried]
    rows = [
        {"k": k, "val": None if math.isnan(v) else v, "val_loss": ls} for k, (v, ls) in zip(tried, looks, strict=True)
    ]
    at = chosen(looks, "max" if higher_is_better else "min")
    if at is None:
        raise UserError("the metric has no value on the validation split; give one with both classes")
    return replace(fit, k=tried[at], val=looks[at].value, val_loss=looks[at].loss, grid_values=rows)


def _tried(ks: Sequence[int], temperature: float, samples: int) -> list[int]:
    if not 0 < temperature < math.inf:
        raise UserError(f"temperature={temperature}: give a number above 0")
    if not ks or min(ks) < 1:
        raise UserError(f"ks={list(ks)}: give numbers of neighbours, at least 1 each")
    tried = sorted({k for k in ks if k <= samples})
    if not tried:
        raise UserError(f"ks={list(ks)}: more neighbours than the {samples} training samples; give smaller ones")
    return tried


def _votes(kind: str, y: np.ndarray, classes: int | None) -> Tensor:
    """What a training sample votes for, [M, K], NaN where unknown: its probability of 1 for K outputs, or its number."""
    if kind == "multiclass":
        return F.one_hot(torch.from_numpy(y), classes or int(y.max()) + 1).double()
    if kind == "ordinal":
        # Column 0 is 1 for all: every sample has at least grade 0.
        return torch.from_numpy(y[:, None] >= np.arange(classes or int(y.max()) + 1)).double()
    return torch.from_numpy(y.reshape(len(y), -1)).double()


def neighbours(x_ND: Tensor, base_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and positions of the k nearest rows of `base_MD` (of unit length), nearest first: [N, k] each.

    In blocks: no N x M matrix exists. A row of zeros is equally far from all.
    """
    cosines, indices = [], []
    for chunk_ND in x_ND.split(QUERIES):
        unit_ND = F.normalize(chunk_ND.to(base_MD.device).float())
        best_NJ = unit_ND.new_empty(len(unit_ND), 0)
        at_NJ = torch.empty_like(best_NJ, dtype=torch.int64)
        for first in range(0, len(base_MD), BASES):
            similar_NM = unit_ND @ base_MD[first : first + BASES].T
            top, at = similar_NM.topk(min(k, similar_NM.shape[1]), dim=1)
            best_NJ, at_NJ = torch.cat([best_NJ, top], 1), torch.cat([at_NJ, at + first], 1)
            best_NJ, kept = best_NJ.topk(min(k, best_NJ.shape[1]), dim=1)
            at_NJ = at_NJ.gather(1, kept)
        cosines.append(best_NJ.cpu())
        indices.append(at_NJ.cpu())
    return torch.cat(cosines), torch.cat(indices)

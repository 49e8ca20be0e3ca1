"""Metrics as an earlier code base computed them, to set beside numbers that were made with it; never a default.

ContIG's evaluation, which mrm_relation inherited: values of each batch of 16 cases, averaged over batches, and the threshold 0.5 on
raw logits rather than on probabilities. Both depend on the order of the cases, here the data set's. Dice is of the whole set, but soft.

Shape letters: N cases, K grades or labels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.weighted import Weighted, ratio

BATCH = 16
LOGIT = 1 / (1 + np.exp(-0.5))
"""The probability (0.62) of a logit of 0.5."""


def over_batches(one: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Predictions], float]:
    """The mean over batches in which `one` has a value."""

    def point(p: Predictions) -> float:
        values = [one(p.target[i : i + BATCH], p.score[i : i + BATCH]) for i in range(0, len(p), BATCH)]
        known = [v for v in values if not np.isnan(v)]
        return float(np.mean(known)) if known else np.nan

    return point


def kappa(grade_N: np.ndarray, score_NK: np.ndarray) -> float:
    """Quadratic kappa; a case without any logit above 0.5 gets the grade -1."""
    from sklearn.metrics import cohen_kappa_score

    said_N = (score_NK > LOGIT).sum(1) - 1
    if len(np.union1d(grade_N, said_N)) < 2:
        return np.nan
    return float(cohen_kappa_score(grade_N, said_N, labels=np.arange(-1, score_NK.shape[1]), weights="quadratic"))


def soft_dice(p: Predictions) -> Weighted:
    """Dice of probabilities, all pixels of all cases and structures as one."""
    assert p.soft_N3 is not None, "the metric dice_contig needs Predictions.soft_N3; name it in the task's metrics"
    both_N, said_N, true_N = p.soft_N3.T
    return lambda W_RN: ratio(W_RN @ (2 * both_N), W_RN @ (said_N + true_N))


def auc_micro(truth_NK: np.ndarray, score_NK: np.ndarray) -> float:
    """Area under one ROC curve of all (case, label) pairs."""
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(truth_NK)
    truth = truth_NK[known]
    return float(roc_auc_score(truth, score_NK[known])) if truth.any() and not truth.all() else np.nan

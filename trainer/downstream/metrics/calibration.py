"""Whether probabilities mean what they say: Brier score, intercept and slope, expected calibration error.

Brier score: Brier, Monthly Weather Review 78, 1950. Intercept and slope: Cox, Biometrika 45, 1958, by the names of Van Calster and
others, BMC Medicine 17, 2019. Expected calibration error: Naeini and others, AAAI 2015, in ten bins of equal width.

Weighted forms as in weighted.py. Shape letters: R resamples, N cases, M cases known in one column, K classes, labels or thresholds,
B bins.
"""

from __future__ import annotations

import numpy as np

from trainer.downstream.metrics.kinds import Kind
from trainer.downstream.metrics.logistic import LogisticFits
from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.weighted import Weighted, columns, drawn, macro, mean_of, ratio

BINS = 10
LEAST = 1e-7  # what a rounded 0 or 1 is taken for, as in the loss of held-back cases
Column = tuple[np.ndarray, np.ndarray, np.ndarray]


def brier(p: Predictions) -> Weighted:
    """Mean squared distance of probabilities from what happened; of classes summed, of labels and thresholds their mean."""
    parts = [mean_of(n, (s - t) ** 2) for n, t, s in columns(p)]
    of_mean = macro(parts)
    return of_mean if p.kind != "multiclass" else lambda W_RN: len(parts) * of_mean(W_RN)


# ---------------------------------------------------------------------------------------------------- expected calibration error


def stated(p: Predictions) -> list[Column]:
    """(case_M, truth_M, probability_M) of each statement: of classes the one that the most probable is right, else as `columns`."""
    if p.kind != "multiclass":
        return columns(p)
    return [(np.arange(len(p)), p.decided() == p.truth(), p.score.max(1))]


def bin_of(score_M: np.ndarray) -> np.ndarray:
    """[M] the bin of a probability, closed below, the last one on both sides."""
    return np.clip((score_M * BINS).astype(np.int64), 0, BINS - 1)


def ece(p: Predictions) -> Weighted:
    """Mean over cases of the distance, within their bin, of the mean probability from the share that happened."""
    return macro([_ece_of(*c) for c in stated(p)])


def _ece_of(case_M: np.ndarray, truth_M: np.ndarray, score_M: np.ndarray) -> Weighted:
    gap_MB = np.eye(BINS)[bin_of(score_M)] * (score_M - truth_M)[:, None]

    def of(W_RN: np.ndarray) -> np.ndarray:
        w_RM = drawn(W_RN, case_M)
        return ratio(np.abs(gap_MB.T @ w_RM.T).sum(0), w_RM.sum(1))

    return of


# --------------------------------------------------------------------------------------------------------- intercept and slope


def logit(score: np.ndarray) -> np.ndarray:
    score = np.clip(score, LEAST, 1 - LEAST)
    return np.log(score) - np.log1p(-score)


def intercept(p: Predictions) -> Weighted:
    """The shift of the log odds that makes the mean probability the share that happened."""
    return macro([_parameter(c, slope=False) for c in columns(p)])


def slope(p: Predictions) -> Weighted:
    """The coefficient of the log odds in a logistic regression of what happened on them."""
    return macro([_parameter(c, slope=True) for c in columns(p)])


def _parameter(column: Column, slope: bool) -> Weighted:
    case_M, truth_M, score_M = column
    fit = LogisticFits(case_M, truth_M, logit(score_M), slope)
    return lambda W_RN: fit(W_RN)[:, int(slope)]


def metrics() -> list[Metric]:
    """Those of probabilities."""
    kinds: tuple[Kind, ...] = ("binary", "multiclass", "multilabel", "ordinal")
    questions: tuple[Kind, ...] = ("binary", "multilabel", "ordinal")
    return [
        own(
            "brier", kinds,
            "mean squared distance of probabilities from what happened (Brier 1950); summed over classes, mean over labels or thresholds "
            "of a grade",
            brier, up=False, scale="error",
        ),
        own(
            "ece", kinds,
            f"expected calibration error: {BINS} bins of equal width (closed below), mean over cases of |mean probability - share that "
            "happened| in their bin; of classes for the most probable one, else mean over labels or thresholds; too high where bins hold "
            "few cases, and more so in resamples: no interval",
            ece, up=False, resampled=False,
        ),
        own(
            "calibration_intercept", questions,
            "calibration in the large: the shift of the log odds that makes their mean probability the share that happened; 0 is best, "
            "above 0 the probabilities are too low; mean over labels or thresholds",
            intercept, up=False, ideal=0.0, scale="real",
        ),
        own(
            "calibration_slope", questions,
            "coefficient of the log odds in a logistic regression of what happened on them (Cox 1958); 1 is best, below 1 the "
            "probabilities are too extreme; no value where a threshold parts both classes; mean over labels or thresholds",
            slope, up=False, ideal=1.0, scale="real",
        ),
    ]  # fmt: skip

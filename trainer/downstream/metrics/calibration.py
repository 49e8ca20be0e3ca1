"""Whether probabilities mean what they say: Brier score, intercept and slope, expected calibration error.

Brier score: Brier, Monthly Weather Review 78, 1950. Intercept and slope: Cox, Biometrika 45, 1958, by the names of Van Calster and
others, BMC Medicine 17, 2019. Expected calibration error: Naeini and others, AAAI 2015, in ten bins of equal width.

Weighted forms as in weighted.py. Shape letters: R resamples, N cases, M cases known in one column, K classes, labels or thresholds,
B bins.
"""

from __future__ import annotations

import numpy as np

from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Kind, Predictions
from trainer.downstream.metrics.weighted import Weighted, columns, macro, ratio

BINS = 10
LEAST = 1e-7  # what a rounded 0 or 1 is taken for, as in the loss of held-back cases
LONGEST_STEP = 2.0  # of Newton's, in units of a standardised logit: from further away than that its parabola misleads
STEPS = 200
CLOSE = 1e-12
Column = tuple[np.ndarray, np.ndarray, np.ndarray]


def brier(p: Predictions) -> Weighted:
    """Mean squared distance of probabilities from what happened; of classes summed, of labels and thresholds their mean."""
    parts = [_mean_of(n, (s - t) ** 2) for n, t, s in columns(p)]
    of_mean = macro(parts)
    return of_mean if p.kind != "multiclass" else lambda W_RN: len(parts) * of_mean(W_RN)


def _mean_of(case_M: np.ndarray, x_M: np.ndarray) -> Weighted:
    def of(W_RN: np.ndarray) -> np.ndarray:
        w_RM = W_RN[:, case_M]
        return ratio(w_RM @ x_M, w_RM.sum(1))

    return of


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
        w_RM = W_RN[:, case_M]
        return ratio(np.abs(w_RM @ gap_MB).sum(1), w_RM.sum(1))

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
    return lambda W_RN: _fitted(W_RN, column, slope)[:, int(slope)]


def _fitted(W_RN: np.ndarray, column: Column, slope: bool) -> np.ndarray:
    """[R, 2] intercept and slope by maximum likelihood; NaN where it has no maximum: one class, or no overlap of both."""
    case_M, truth_M, score_M = column
    w_RM, x_M, y_M = W_RN[:, case_M], logit(score_M), truth_M.astype(np.float64)
    fitted_R2 = np.full((len(W_RN), 2), np.nan)
    able_R = _overlap(w_RM, truth_M, x_M) if slope else _both(w_RM, truth_M)
    if able_R.any():
        fitted_R2[able_R] = _newton(w_RM[able_R], x_M, y_M, slope)
    return fitted_R2


def _both(w_RM: np.ndarray, truth_M: np.ndarray) -> np.ndarray:
    return (w_RM[:, truth_M].sum(1) > 0) & (w_RM[:, ~truth_M].sum(1) > 0)


def _overlap(w_RM: np.ndarray, truth_M: np.ndarray, x_M: np.ndarray) -> np.ndarray:
    """[R] whether no threshold parts those who had it from those who had not, ties at the threshold included."""
    drawn_RM = w_RM > 0
    low_R, high_R = [], []  # of those without and of those with it
    for side in (~truth_M, truth_M):
        here_RM = drawn_RM & side
        low_R.append(np.where(here_RM, x_M, np.inf).min(1, initial=np.inf))
        high_R.append(np.where(here_RM, x_M, -np.inf).max(1, initial=-np.inf))
    return (high_R[0] > low_R[1]) & (high_R[1] > low_R[0])


def _newton(w_RM: np.ndarray, x_M: np.ndarray, y_M: np.ndarray, slope: bool) -> np.ndarray:
    """[R, 2] where the likelihood of logit P = a + b x is largest; b is 1 unless `slope` is asked for.

    x is scaled by its largest deviation, so that a step has a meaning; the likelihood is concave, so that short steps arrive.
    """
    centre, scale = x_M.mean(), np.abs(x_M - x_M.mean()).max() or 1.0
    z_M = (x_M - centre) / scale
    a_R, b_R = np.zeros(len(w_RM)), np.full(len(w_RM), 1.0 if slope else scale)
    going = np.arange(len(w_RM))
    for number in range(STEPS):
        w_GM = w_RM[going]
        p_GM = _expit(a_R[going, None] + b_R[going, None] * z_M)
        residual_GM, h_GM = w_GM * (y_M - p_GM), w_GM * p_GM * (1 - p_GM)
        da_G, db_G = _step(residual_GM, h_GM, z_M, slope)
        longest = LONGEST_STEP / (1 + number / 20)  # ever shorter, so that no two points are taken in turn
        longest_G = np.maximum(np.maximum(np.abs(da_G), np.abs(db_G)) / longest, 1)
        a_R[going] += da_G / longest_G
        b_R[going] += db_G / longest_G
        large_G = np.maximum(np.abs(a_R[going]), np.abs(b_R[going])) + 1
        going = going[np.maximum(np.abs(da_G), np.abs(db_G)) > CLOSE * large_G]
        if not len(going):
            break
    b_R = b_R / scale
    return np.stack([a_R - b_R * centre, b_R], 1)


def _step(residual_GM: np.ndarray, h_GM: np.ndarray, z_M: np.ndarray, slope: bool) -> tuple[np.ndarray, np.ndarray]:
    """Newton's step for intercept and slope, the latter zero where it is not asked for."""
    g0, h0 = residual_GM.sum(1), h_GM.sum(1)
    if not slope:
        return ratio(g0, h0), np.zeros(len(g0))
    g1, h1, h2 = residual_GM @ z_M, h_GM @ z_M, h_GM @ z_M**2
    determinant = h0 * h2 - h1 * h1
    da_G, db_G = ratio(h2 * g0 - h1 * g1, determinant), ratio(h0 * g1 - h1 * g0, determinant)
    return np.nan_to_num(da_G), np.nan_to_num(db_G)


def _expit(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(x)


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

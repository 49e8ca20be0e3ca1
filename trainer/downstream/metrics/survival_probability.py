"""Survival as probabilities over time: the integrated Brier score, and calibration at a horizon.

Brier score under censoring: Graf and others, Statistics in Medicine 18, 1999, by inverse probabilities of censoring as survival.py has
them. The probabilities are those that the validation split gives to scores (recalibrated.py).

Weighted forms as in weighted.py. Shape letters: R resamples, N cases, G different times, H horizons.
"""

from __future__ import annotations

import numpy as np

from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.shared import of_same
from trainer.downstream.metrics.survival import Horizons, horizons_of, surviving, uncensored
from trainer.downstream.metrics.weighted import Weighted, ratio


def integrated_brier(p: Predictions) -> Weighted:
    """The area under the Brier score over the horizons, by trapezoids, over their span; of one horizon its Brier score.

    Horizons beyond which cases cannot be weighed, since nobody was followed so long, end the span.
    """
    if p.survival_NH is None:
        return lambda W_RN: np.full(len(W_RN), np.nan)
    horizons, survival_NH = horizons_of(p), p.survival_NH
    case_HN, control_HN = _counting(horizons)
    square_HN, other_HN = case_HN * survival_NH.T**2, control_HN * (1 - survival_NH.T) ** 2

    def of(W_RN: np.ndarray) -> np.ndarray:
        """Horizons without a value: nobody was followed so long, or a case that counts cannot be weighed."""
        inverse_NR, at_HR, without_HR, drawn_R = _weighed(horizons, W_RN)
        sum_HR = square_HN @ inverse_NR + np.nan_to_num(ratio(other_HN @ W_RN.T, at_HR))
        return _over_span(np.where(without_HR, np.nan, ratio(sum_HR, drawn_R)).T, horizons.at_H)

    return of


def _counting(horizons: Horizons) -> tuple[np.ndarray, np.ndarray]:
    """([H, N] who has had an event by each horizon, [H, N] who is followed beyond it)."""
    times, at_H1 = horizons.times, horizons.at_H[:, None]
    return times.event_N & (times.time_N <= at_H1), times.time_N > at_H1


@of_same(2)
def _weighed(horizons: Horizons, W_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """([N, R] weights by the censoring before each case's time, [H, R] the share not censored, [H, R] without a value, [R] cases drawn)."""
    times, W_NR = horizons.times, W_RN.T
    uncensored_GR = np.concatenate([np.ones((1, len(W_RN))), uncensored(times, W_RN).T])
    of_case_NR, at_HR = uncensored_GR[times.of_N + 1], uncensored_GR[horizons.before_H]
    drawn_R = W_NR.sum(0)
    if (of_case_NR > 0).all():
        return W_NR / of_case_NR, at_HR, at_HR == 0, drawn_R
    inverse_NR = np.divide(W_NR, of_case_NR, out=np.zeros(W_NR.shape), where=of_case_NR > 0)
    lost_HR = _counting(horizons)[0].astype(float) @ ((W_NR > 0) & (of_case_NR == 0))  # few are lost in few resamples
    return inverse_NR, at_HR, (lost_HR > 0) | (at_HR == 0), drawn_R


def _over_span(brier_RH: np.ndarray, horizons_H: np.ndarray) -> np.ndarray:
    """[R] the mean over the horizons up to the first without a value, weighed by time."""
    known_RH = np.cumprod(~np.isnan(brier_RH), axis=1).astype(bool)
    wide_H = np.diff(horizons_H)
    both_RH = known_RH[:, 1:] & known_RH[:, :-1]
    area_R = (np.where(both_RH, (brier_RH[:, 1:] + brier_RH[:, :-1]) / 2, 0.0) * wide_H).sum(1)
    mean_R = ratio(area_R, (both_RH * wide_H).sum(1))
    return np.where(np.isnan(mean_R), brier_RH[:, 0], mean_R)


def middle(horizons_H: np.ndarray) -> int:
    """Which horizon calibration is looked at: the median one, of two the earlier."""
    return (len(horizons_H) - 1) // 2


def horizon_gap(p: Predictions) -> Weighted:
    """The share with an event by the middle horizon, by Kaplan and Meier, less the mean probability that was said."""
    if p.survival_NH is None:
        return lambda W_RN: np.full(len(W_RN), np.nan)
    horizons = horizons_of(p)
    at = middle(horizons.at_H)
    said_N, last = 1 - p.survival_NH[:, at], horizons.before_H[at]

    def of(W_RN: np.ndarray) -> np.ndarray:
        survival_R = surviving(horizons.times, W_RN)[:, last - 1] if last else np.ones(len(W_RN))
        return 1 - survival_R - ratio(W_RN @ said_N, W_RN.sum(1))

    return of


def metrics() -> list[Metric]:
    """Those of probabilities over time."""
    said = "probabilities: Cox's model of the score on the validation split"
    return [
        own(
            "integrated_brier", ("survival",),
            "Brier score of being without event beyond a horizon, by inverse probabilities of censoring (Graf 1999, Kaplan and Meier on "
            f"the test cases); its area by trapezoids over the span of the horizons; {said}",
            integrated_brier, up=False, scale="error",
        ),
        own(
            "horizon_gap", ("survival",),
            "calibration at the middle horizon: share with an event by then (Kaplan and Meier) less the mean probability that was said; 0 "
            f"is best, above 0 the probabilities are too low; {said}",
            horizon_gap, up=False, ideal=0.0, scale="real",
        ),
    ]  # fmt: skip

"""Survival as probabilities over time: the integrated Brier score, and calibration at a horizon.

Brier score under censoring: Graf and others, Statistics in Medicine 18, 1999, by inverse probabilities of censoring as survival.py has
them. The probabilities are those that the validation split gives to scores (recalibrated.py).

Weighted forms as in weighted.py. Shape letters: R resamples, N cases, G different times, H horizons.
"""

from __future__ import annotations

import numpy as np

from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.survival import surviving, times_of, uncensored
from trainer.downstream.metrics.weighted import Weighted, ratio


def integrated_brier(p: Predictions) -> Weighted:
    """The area under the Brier score over the horizons, by trapezoids, over their span; of one horizon its Brier score.

    Horizons beyond which cases cannot be weighed, since nobody was followed so long, end the span.
    """
    if p.survival_NH is None:
        return lambda W_RN: np.full(len(W_RN), np.nan)
    times, survival_NH = times_of(p), p.survival_NH
    assert p.horizons_H is not None
    horizons_H = p.horizons_H
    case_HN = times.event_N & (times.time_N <= horizons_H[:, None])
    control_HN = times.time_N > horizons_H[:, None]
    square_HN, other_HN = case_HN * survival_NH.T**2, control_HN * (1 - survival_NH.T) ** 2

    def of(W_RN: np.ndarray) -> np.ndarray:
        """Horizons without a value: nobody was followed so long, or a case that counts cannot be weighed."""
        W_NR = W_RN.T
        uncensored_GR = np.concatenate([np.ones((1, len(W_RN))), uncensored(times, W_RN).T])
        of_case_NR, at_HR = uncensored_GR[times.of_N + 1], uncensored_GR[[times.before(h) for h in horizons_H]]
        lost_HR = np.zeros(at_HR.shape)
        if (of_case_NR > 0).all():
            inverse_NR = W_NR / of_case_NR
        else:
            inverse_NR = np.divide(W_NR, of_case_NR, out=np.zeros(W_NR.shape), where=of_case_NR > 0)
            lost_HR = case_HN.astype(float) @ ((W_NR > 0) & (of_case_NR == 0))  # few are lost in few resamples
        sum_HR = square_HN @ inverse_NR + np.nan_to_num(ratio(other_HN @ W_NR, at_HR))
        brier_HR = np.where((lost_HR > 0) | (at_HR == 0), np.nan, ratio(sum_HR, W_NR.sum(0)))
        return _over_span(brier_HR.T, horizons_H)

    return of


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
    assert p.horizons_H is not None
    times, at = times_of(p), middle(p.horizons_H)
    said_N, last = 1 - p.survival_NH[:, at], times.before(p.horizons_H[at])

    def of(W_RN: np.ndarray) -> np.ndarray:
        surviving_GR = np.concatenate([np.ones((1, len(W_RN))), surviving(times, W_RN).T])
        return 1 - surviving_GR[last] - ratio(W_RN @ said_N, W_RN.sum(1))

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

"""Survival as probabilities over time: the integrated Brier score, and calibration at a horizon.

Brier score under censoring: Graf and others, Statistics in Medicine 18, 1999, by inverse probabilities of censoring as survival.py has
them. The probabilities are those that the validation split gives to scores (recalibrated.py).

Weighted forms as in weighted.py. Shape letters: R resamples, N cases, G different times, H horizons.
"""

from __future__ import annotations

import numpy as np

from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.survival import Times
from trainer.downstream.metrics.weighted import Weighted, ratio


def integrated_brier(p: Predictions) -> Weighted:
    """The area under the Brier score over the horizons, by trapezoids, over their span; of one horizon its Brier score.

    Horizons beyond which cases cannot be weighed, since nobody was followed so long, end the span.
    """
    if p.survival_NH is None:
        return lambda W_RN: np.full(len(W_RN), np.nan)
    times, survival_NH = Times(p), p.survival_NH
    assert p.horizons_H is not None
    horizons_H = p.horizons_H

    def of(W_RN: np.ndarray) -> np.ndarray:
        uncensored_RG = np.concatenate([np.ones((len(W_RN), 1)), times.uncensored(W_RN)], 1)
        of_case_RN = uncensored_RG[:, times.of_N + 1]
        brier_HR = [
            _brier(W_RN, times, h, s_N, of_case_RN, uncensored_RG[:, times.before(h)])
            for h, s_N in zip(horizons_H, survival_NH.T, strict=True)
        ]
        return _over_span(np.stack(brier_HR, 1), horizons_H)

    return of


def _brier(
    W_RN: np.ndarray, times: Times, horizon: float, s_N: np.ndarray, of_case_RN: np.ndarray, at_R: np.ndarray
) -> np.ndarray:
    """[R] the Brier score at a horizon; NaN where nobody was followed so long, or a case that counts cannot be weighed."""
    case_N, control_N = times.event_N & (times.time_N <= horizon), times.time_N > horizon
    case_RN, control_RN = W_RN * case_N, W_RN * control_N
    lost_R = ((case_RN > 0) & (of_case_RN == 0)).any(1)
    cases_R = (np.where(case_RN > 0, np.nan_to_num(ratio(case_RN, of_case_RN)), 0.0) * s_N**2).sum(1)
    controls_R = np.nan_to_num(ratio(control_RN @ (1 - s_N) ** 2, at_R))
    return np.where(lost_R | (at_R == 0), np.nan, ratio(cases_R + controls_R, W_RN.sum(1)))


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
    times, at = Times(p), middle(p.horizons_H)
    said_N, last = 1 - p.survival_NH[:, at], times.before(p.horizons_H[at])

    def of(W_RN: np.ndarray) -> np.ndarray:
        surviving_RG = np.concatenate([np.ones((len(W_RN), 1)), times.surviving(W_RN)], 1)
        return 1 - surviving_RG[:, last] - ratio(W_RN @ said_N, W_RN.sum(1))

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

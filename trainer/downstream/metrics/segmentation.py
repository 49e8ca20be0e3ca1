"""Overlap of masks, from counts of pixels. There is no one "Dice": on the same masks these conventions differ by tens of points.

dice = 2 * both / (true + predicted), where `both` is the intersection. A case is a slice or an image.

Shape letters: R resamples, N cases, P patients.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.weighted import Weighted, drawn, macro, mean_of, ratio


def _counts(p: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return p.score[:, 0], p.score[:, 1], p.target


def _volumes(p: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(first_P, both_P, predicted_P, true_P): counts summed over a patient's cases, and one case of each patient."""
    _, first_P, of_N = np.unique(p.patients_N, return_index=True, return_inverse=True)
    both_P, predicted_P, true_P = (np.bincount(of_N, x_N) for x_N in _counts(p))
    return first_P, both_P, predicted_P, true_P


def dice_of_patients(p: Predictions) -> np.ndarray:
    """[P] Dice of each patient's volume; NaN where nothing is true and nothing predicted."""
    _, both_P, predicted_P, true_P = _volumes(p)
    return ratio(2 * both_P, true_P + predicted_P)


def iou_of_patients(p: Predictions) -> np.ndarray:
    """[P] intersection over union of each patient's volume; NaN where nothing is true and nothing predicted."""
    _, both_P, predicted_P, true_P = _volumes(p)
    return ratio(both_P, true_P + predicted_P - both_P)


def dice_of_positives(p: Predictions) -> np.ndarray:
    """[N] Dice of each case that has truth; NaN for the others."""
    both_N, predicted_N, true_N = _counts(p)
    return np.where(true_N > 0, ratio(2 * both_N, true_N + predicted_N), np.nan)


def dice_of_all(p: Predictions) -> np.ndarray:
    """[N] Dice of each case: empty and predicted empty is 1, empty with any pixel predicted is 0."""
    both_N, predicted_N, true_N = _counts(p)
    dice_N = ratio(2 * both_N, true_N + predicted_N)
    return np.where(np.isnan(dice_N), 1.0, dice_N)


def over_structures(one: Callable[[Predictions], Weighted]) -> Callable[[Predictions], Weighted]:
    """The mean over the structures that have a value; of one structure its own."""

    def of(p: Predictions) -> Weighted:
        parts = [one(s) for s in p.structures()]
        return parts[0] if len(parts) == 1 else macro(parts)

    return of


def mean_over_cases(value_N: np.ndarray) -> Weighted:
    """The mean of those cases that have a value, a case as often as it was drawn."""
    known_N = ~np.isnan(value_N)
    return mean_of(np.flatnonzero(known_N), value_N[known_N])


def mean_over_patients(p: Predictions, value_P: np.ndarray) -> Weighted:
    """The mean of those patients that have a value. All cases of a patient are drawn together, so any one tells how often."""
    first_P = _volumes(p)[0]
    of_patients = mean_over_cases(value_P)
    return lambda W_RN: of_patients(drawn(W_RN, first_P))


def of_one(value: Callable[[Predictions], np.ndarray]) -> Callable[[Predictions], np.ndarray]:
    """The numbers of cases or patients of one structure; none of several, whose mean is over structures."""
    return lambda p: np.empty(0) if p.classes else value(p)

"""Bounds where the bootstrap knows none: if every test patient is right, so is every resample, and the interval has no width.

Two bounds are known, both over patients as if they weighed alike:

shares   a mean of numbers within 0..1 whose every patient stands at 1 (or at 0). What the whole population's mean is at least is the
         share of patients at 1, whose exact bound is Clopper and Pearson's (Biometrika 26, 1934): (alpha / 2) ^ (1 / P).
curves   an area under a ROC curve of 1 (or 0): the score interval of Newcombe, "Confidence intervals for an effect size measure
         based on the Mann-Whitney statistic. Part 2", Statistics in Medicine 25, 2006, method 5.

A metric that is a mean over parts (classes, labels, structures) gets the mean of its parts' bounds, each at alpha / parts
(Bonferroni), so that they hold together.

Shape letters: P patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trainer.downstream.metrics import weighted
from trainer.downstream.metrics.predictions import Predictions

SHARES, CURVES = "Clopper-Pearson", "Newcombe"


def shares(patients: Sequence[int], level: float) -> float:
    """How far below 1 the mean of means over so many patients each may be, all of them being at 1."""
    alpha = (1 - level) / len(patients)
    return sum(1 - (alpha / 2) ** (1 / n) for n in patients) / len(patients)


def curves(patients: Sequence[tuple[int, int]], level: float) -> float:
    """How far below 1 the mean of areas may be, each over so many patients with positives and with negatives, all being 1."""
    alpha = (1 - level) / len(patients)
    return sum(1 - _area(m, n, alpha) for m, n in patients) / len(patients)


def _area(positives: int, negatives: int, alpha: float) -> float:
    """The area A below 1 with 1 - A = z sd(A), the deviation that of Hanley and McNeil with the mean size of both groups."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    z2, mean = norm.isf(alpha / 2) ** 2, (positives + negatives) / 2

    def excess(a: float) -> float:
        variance = a * (1 + (mean - 1) * ((1 - a) / (2 - a) + a / (1 + a))) / (positives * negatives)
        return (1 - a) - z2 * variance  # both sides divided by 1 - a

    return float(brentq(excess, 0.0, 1.0))


# ------------------------------------------------------------------------------------------------- who stands behind a metric

Slack = Callable[[Predictions, float], tuple[str, float]]
"""(known predictions, level) -> the bound's name, and how far from its end a metric's value may be."""


def of_cases(p: Predictions, level: float) -> tuple[str, float]:
    """A mean over cases; of masks, over the cases of each structure."""
    parts = len(p.structures()) if p.kind == "segmentation" else 1
    return SHARES, shares([_patients(p, np.ones(len(p), bool))] * parts, level)


def of_classes(p: Predictions, level: float) -> tuple[str, float]:
    """A mean over the cases of each class that has one."""
    truth_N = p.truth()
    return SHARES, shares([_patients(p, truth_N == k) for k in np.unique(truth_N)], level)


def of_positives(p: Predictions, level: float) -> tuple[str, float]:
    """A mean over the cases that have truth, of each structure."""
    return SHARES, shares([n for s in p.structures() if (n := _patients(s, s.target > 0))], level)


def of_volumes(p: Predictions, level: float) -> tuple[str, float]:
    """A mean over the patients with any true or predicted pixel, of each structure."""
    found = [_patients(s, (s.target > 0) | (s.score[:, 1] > 0)) for s in p.structures()]
    return SHARES, shares([n for n in found if n], level)


def of_columns(p: Predictions, level: float) -> tuple[str, float]:
    """The area under the curve of each yes-or-no question."""
    return CURVES, curves([sides for c in weighted.columns(p) if all(sides := _sides(p, c))], level)


def of_first_column(p: Predictions, level: float) -> tuple[str, float]:
    return CURVES, curves([_sides(p, weighted.columns(p)[0])], level)


def of_pooled(p: Predictions, level: float) -> tuple[str, float]:
    return CURVES, curves([_sides(p, weighted.pooled(p))], level)


def _sides(p: Predictions, column: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[int, int]:
    """Patients with a positive and patients with a negative case."""
    case_M, truth_M, _ = column
    return len(np.unique(p.patients_N[case_M[truth_M]])), len(np.unique(p.patients_N[case_M[~truth_M]]))


def _patients(p: Predictions, these_N: np.ndarray) -> int:
    return len(np.unique(p.patients_N[these_N]))

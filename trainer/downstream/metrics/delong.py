"""Areas under ROC curves of the same test cases, two systems against each other, with patients as clusters.

Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 53, 1997: the placement of each positive case among the
negative ones and of each negative among the positive ones, summed within patients. Where every patient has one case this is the test of
DeLong and others, Biometrics 44, 1988. No resampling, so that p has no floor.

Degrees of freedom by Satterthwaite over patients with a positive case and patients with a negative one (Brunner and Munzel, Biometrical
Journal 42, 2000).

An area that is a mean over questions (classes, labels, thresholds) has the mean of their placements.

Shape letters: P patients, M cases of one question, X positive ones, Y negative ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.downstream.metrics.predictions import Predictions

NAME = "DeLong-Obuchowski"
Column = tuple[np.ndarray, np.ndarray, np.ndarray]
Questions = Callable[[Predictions], list[Column]]
"""Predictions -> (case_M, truth_M, score_M) of each yes-or-no question that the area is a mean over."""


@dataclass(frozen=True)
class Placed:
    """What each patient adds to a mean area, less its share of it; summed over questions, mean over seeds.

    plain_P   (from its positive cases, from its negative ones)
    wide_P    the same, each question widened for the number of its patients on that side
    parts     (variance, degrees of freedom) of each question's two sides
    """

    plain_P: tuple[np.ndarray, np.ndarray]
    wide_P: tuple[np.ndarray, np.ndarray]
    parts: tuple[tuple[float, int], ...]

    @property
    def error(self) -> float:
        """The root of Obuchowski's variance: both sides, and what they have in common within patients."""
        P = len(self.plain_P[0])
        (x_P, y_P), common = self.wide_P, P / (P - 1) * float(self.plain_P[0] @ self.plain_P[1])
        return math.sqrt(max(float(x_P @ x_P + y_P @ y_P) + 2 * common, 0.0))

    @property
    def freedom(self) -> float:
        """At most one less than there are patients."""
        total, squares = sum(v for v, _ in self.parts), sum(v * v / df for v, df in self.parts)
        most = float(len(self.plain_P[0]) - 1)
        return min(total**2 / squares, most) if squares > 0 else most


def placements(truth_M: np.ndarray, score_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(of_X, of_Y): of each positive case the share of negatives below it, of each negative that of positives above it; ties one half."""
    x_X, y_Y = score_M[truth_M], score_M[~truth_M]
    return _below(x_X, np.sort(y_Y)), 1 - _below(y_Y, np.sort(x_X))


def _below(x_X: np.ndarray, sorted_Y: np.ndarray) -> np.ndarray:
    """[X] the share of the others that lie below, ties one half: mid-ranks among both less those among one's own."""
    twice_X = np.searchsorted(sorted_Y, x_X, "left") + np.searchsorted(sorted_Y, x_X, "right")
    return twice_X / 2 / len(sorted_Y)


def placed(a: Sequence[Predictions], b: Sequence[Predictions], questions: Questions) -> Placed | None:
    """Placements of system a less those of system b, with known cases in one order; None where fewer than two patients stand on a side.

    Questions without positives or negatives are left out, as in the area itself.
    """
    of_N = np.unique(a[0].patients_N, return_inverse=True)[1]
    return between(questions(a[0]), of_N, mean_placements(a, questions), mean_placements(b, questions))


def mean_placements(system: Sequence[Predictions], questions: Questions) -> list[np.ndarray]:
    """Of each question [M] the mean over seeds of the placement of every case; empty where it has no positives or no negatives."""
    columns = [questions(p) for p in system]
    truth = [np.asarray(truth_M, dtype=bool) for _, truth_M, _ in columns[0]]
    return [
        np.mean([_both(truth_M, c[k][2]) for c in columns], axis=0)
        if truth_M.any() and not truth_M.all()
        else np.empty(0)
        for k, truth_M in enumerate(truth)
    ]


def between(columns: list[Column], of_N: np.ndarray, a: list[np.ndarray], b: list[np.ndarray]) -> Placed | None:
    """`placed` from the questions of either system, the patient of each case, and the mean placements of both."""
    P, able = int(of_N.max(initial=-1)) + 1, [k for k, mean_M in enumerate(a) if len(mean_M)]
    plain, wide, parts = np.zeros((2, P)), np.zeros((2, P)), []
    for k in able:
        case_M, truth_M, _ = columns[k]
        truth_M = np.asarray(truth_M, dtype=bool)
        for side, (these_M, n) in enumerate(((truth_M, truth_M.sum()), (~truth_M, (~truth_M).sum()))):
            of_X = of_N[case_M[these_M]]
            value_X = (a[k] - b[k])[these_M]
            clusters = len(np.unique(of_X))
            if clusters < 2:
                return None
            part_P = np.bincount(of_X, value_X - value_X.mean(), P) / (n * len(able))
            plain[side] += part_P
            wide[side] += part_P * math.sqrt(clusters / (clusters - 1))
            parts.append((float(part_P @ part_P), clusters - 1))
    return Placed((plain[0], plain[1]), (wide[0], wide[1]), tuple(parts)) if able else None


def _both(truth_M: np.ndarray, score_M: np.ndarray) -> np.ndarray:
    """[M] the placement of every case, on whichever side it stands."""
    out_M = np.empty(len(truth_M))
    out_M[truth_M], out_M[~truth_M] = placements(truth_M, score_M)
    return out_M

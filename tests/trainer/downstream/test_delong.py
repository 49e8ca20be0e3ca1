"""Paired areas under ROC curves with patients as clusters: against the papers' sums written out, and a published program's numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from tests.trainer.downstream.cohorts import make, random_predictions
from trainer.downstream.metrics import delong
from trainer.downstream.metrics.statistics import paired
from trainer.downstream.metrics.table import METRICS, Predictions


def psi(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def obuchowski(truth_N: np.ndarray, score_N2: np.ndarray, patient_N: np.ndarray) -> tuple[np.ndarray, float]:
    """Areas of two systems and the variance of their difference: equations 1 to 5 of the paper, by sums over pairs and patients."""
    positive, negative = np.flatnonzero(truth_N), np.flatnonzero(~truth_N)
    m, n, names = len(positive), len(negative), np.unique(patient_N)
    v10 = {(i, r): sum(psi(score_N2[i, r], score_N2[j, r]) for j in negative) / n for i in positive for r in (0, 1)}
    v01 = {(j, r): sum(psi(score_N2[i, r], score_N2[j, r]) for i in positive) / m for j in negative for r in (0, 1)}
    area = np.array([sum(v10[i, r] for i in positive) / m for r in (0, 1)])

    def sums(values: dict[tuple[int, int], float], cases: np.ndarray, r: int) -> dict[str, float]:
        of = {p: [values[c, r] for c in cases if patient_N[c] == p] for p in names}
        return {p: sum(v) - len(v) * area[r] for p, v in of.items()}

    I10, I01, P = len(set(patient_N[positive])), len(set(patient_N[negative])), len(names)
    x, y = ([sums(v, c, r) for r in (0, 1)] for v, c in ((v10, positive), (v01, negative)))

    def covariance(r: int, s: int) -> float:
        s10 = I10 / ((I10 - 1) * m) * sum(x[r][p] * x[s][p] for p in names)
        s01 = I01 / ((I01 - 1) * n) * sum(y[r][p] * y[s][p] for p in names)
        s11 = [P / (P - 1) * sum(x[a][p] * y[b][p] for p in names) for a, b in ((r, s), (s, r))]
        return s10 / m + s01 / n + (s11[0] + s11[1]) / (m * n)

    return area, covariance(0, 0) + covariance(1, 1) - 2 * covariance(0, 1)


@pytest.mark.parametrize("per_patient", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_sums_of_the_paper(seed: int, per_patient: int) -> None:
    """With ties, and with patients who have positive and negative cases; of one case each it is DeLong's own test."""
    rng = np.random.default_rng(seed)
    truth_N = rng.random(36) < 0.4
    score_N2 = np.round(rng.random((36, 2)) + 0.2 * truth_N[:, None], 1).clip(0, 1)
    a, b = (make("binary", truth_N, score_N2[:, r], per_patient=per_patient) for r in (0, 1))
    area, variance = obuchowski(truth_N, score_N2, a.patients_N)
    found = paired([a], [b], "auc")
    assert found.by == delong.NAME
    assert found.difference == pytest.approx(area[0] - area[1], abs=1e-12)
    assert found.error == pytest.approx(np.sqrt(variance), abs=1e-12)
    columns = METRICS["auc"].areas
    assert columns is not None
    one = delong.placed(
        [a], [replace(a, score=np.full(36, 0.5))], columns
    )  # against no answer: the area's own variance
    assert one is not None
    if per_patient == 1:
        x, y = delong.placements(truth_N, score_N2[:, 0])
        assert one.error**2 == pytest.approx(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y), abs=1e-12)


def test_equals_a_published_program() -> None:
    """z of MLstatkit 0.1.91 and of confidenceinterval 1.0.5 (after Sun and Xu 2014) on these numbers: one case a patient."""
    rng = np.random.default_rng(42)
    truth_N = np.arange(40) % 3 == 0
    score_N2 = rng.random((40, 2)) + np.array([0.5, 0.2]) * truth_N[:, None]
    a, b = (make("binary", truth_N, score_N2[:, r] / 2) for r in (0, 1))
    found = paired([a], [b], "auc")
    assert found.difference / found.error == pytest.approx(3.155624, abs=1e-5)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "ordinal"])
def test_a_mean_of_areas_has_the_error_that_resampling_finds(kind: str) -> None:
    rng = np.random.default_rng(3)
    p = random_predictions(kind, rng, 300, k=3, unknown=0.1 if kind == "multilabel" else 0.0)  # type: ignore[arg-type]
    q = replace(p, score=random_predictions(kind, rng, 300, k=3).score)  # type: ignore[arg-type]
    exact, resampled = (paired([p], [q], m, draws=1500) for m in ("auc", replace(METRICS["auc"], areas=None)))
    assert (exact.by, resampled.by) == (delong.NAME, "bootstrap-se")
    assert exact.error == pytest.approx(resampled.error, rel=0.1)
    assert exact.p == pytest.approx(resampled.p, abs=0.05)


def test_seeds_add_what_other_trainings_would_have_given() -> None:
    """Two systems of three seeds: p is Student's t of the difference over both sources' errors, and the interval agrees with it."""
    rng = np.random.default_rng(4)
    truth_N = np.arange(60) % 2 == 1
    shared_N = rng.normal(size=60)

    def trained(skill: float) -> Predictions:
        return make("binary", truth_N, norm.cdf(skill * truth_N + shared_N + 0.5 * rng.normal(size=60)))

    a, b = [trained(s) for s in (1.0, 1.5, 2.0)], [trained(s) for s in (0.5, 1.0, 1.2)]
    found = paired(a, b, "auc")
    of_seeds = sum(np.var([METRICS["auc"].compute(p) for p in s], ddof=1) / 3 for s in (a, b))
    reach = (found.high - found.low) / 2
    assert reach > 1.96 * np.hypot(found.error, np.sqrt(of_seeds))
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert paired(a, b, "auc", level=1 - found.p).low == pytest.approx(0, abs=1e-9)


def test_one_patient_on_a_side_is_left_to_resampling() -> None:
    p = make("binary", [1, 0, 0, 0, 0, 0], [0.9, 0.8, 0.95, 0.1, 0.2, 0.3])
    q = replace(p, score=p.score[::-1])
    assert paired([p], [q], "auc", draws=100).by == "bootstrap-se"

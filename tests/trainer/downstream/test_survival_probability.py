"""Survival as probabilities equals scikit-survival's on random cohorts: ties, few events, one event, everybody censored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.trainer.downstream.test_survival_peers import SETS, cohort, structured
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.recalibrated import of_plain, recalibrated, with_survival
from trainer.downstream.metrics.statistics import bootstrap, paired
from trainer.downstream.metrics.survival_probability import middle
from trainer.downstream.metrics.table import METRICS


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip("sksurv.metrics", reason="scikit-survival is not installed: pip install -e .[test]")


def probable(number: int) -> Predictions:
    """A cohort, with survival that falls by some rate of each case's own."""
    p = cohort(number)
    assert p.horizons_H is not None
    rate_N = np.random.default_rng(number).uniform(0.2, 3, len(p)) / p.target[:, 0].mean()
    return replace(p, survival_NH=np.exp(-rate_N[:, None] * p.horizons_H))


def test_integrated_brier_equals_scikit_survival(peer: Any) -> None:
    compared = 0
    for number in range(SETS):
        p = probable(number)
        assert p.horizons_H is not None
        ours = METRICS["integrated_brier"].compute(p)
        assert np.isfinite(ours), number
        if len(p.horizons_H) < 2 or not p.target[:, 1].any():  # all censored: refused there, a number here
            continue
        theirs = peer.integrated_brier_score(structured(p), structured(p), p.survival_NH, p.horizons_H)
        assert ours == pytest.approx(theirs, abs=1e-9), number
        compared += 1
    assert compared >= 180


def test_the_gap_at_the_middle_horizon_is_kaplan_meiers(peer: Any) -> None:
    nonparametric = pytest.importorskip("sksurv.nonparametric")
    for number in range(0, SETS, 5):
        p = probable(number)
        assert p.horizons_H is not None
        assert p.survival_NH is not None
        at = middle(p.horizons_H)
        time_G, survival_G = nonparametric.kaplan_meier_estimator(p.target[:, 1] == 1, p.target[:, 0])
        seen = survival_G[time_G <= p.horizons_H[at]]
        happened = 1 - (seen[-1] if len(seen) else 1.0)
        ours = METRICS["horizon_gap"].compute(p)
        assert ours == pytest.approx(happened - (1 - p.survival_NH[:, at]).mean(), abs=1e-9)


def test_scores_are_read_by_coxs_model_with_breslows_baseline(peer: Any) -> None:
    """Fitted on one cohort, looked at on another: as scikit-survival's model of the score as its one covariate."""
    linear = pytest.importorskip("sksurv.linear_model")
    compared = 0
    for number in range(1, 32):
        val, test = cohort(number), cohort(number + 1)
        val = replace(val, horizons_H=test.horizons_H)
        if val.target[:, 1].sum() <= 3:
            continue
        fit = of_plain(recalibrated(val).plain())
        if fit.bounded:
            continue
        model = linear.CoxPHSurvivalAnalysis(ties="breslow", tol=1e-12, n_iter=200).fit(
            val.score[:, None], structured(val)
        )
        assert fit.coefficient == pytest.approx(float(model.coef_[0]), abs=1e-5), number
        known = model.unique_times_
        theirs = np.stack(
            [
                [f(h) if known[0] <= h <= known[-1] else np.nan for h in test.horizons_H]  # type: ignore[union-attr]
                for f in model.predict_survival_function(test.score[:, None])
            ]
        )
        ours = with_survival(test, fit).survival_NH
        at = ~np.isnan(theirs)
        assert ours[at] == pytest.approx(theirs[at], abs=1e-5), number  # type: ignore[index]
        compared += at.any()
    assert compared > 20


def test_what_cannot_be_known_is_named_and_nothing_crashes() -> None:
    """Nobody with an event, everybody alike, no overlap: a baseline all the same, and what set it no limit is said."""
    p = cohort(21)
    censored = replace(p, target=np.stack([p.target[:, 0], np.zeros(len(p))], 1))
    alike = replace(p, score=np.zeros(len(p)))
    perfect = replace(p, score=-p.target[:, 0], target=np.stack([p.target[:, 0], np.ones(len(p))], 1))
    for val, bounded in ((censored, False), (alike, False), (perfect, True)):
        fit = recalibrated(val)
        assert fit.bounded == bounded
        read = with_survival(p, fit)
        assert read.survival_NH is not None
        assert np.isfinite(METRICS["integrated_brier"].compute(read))
    assert recalibrated(alike).coefficient == 0
    assert (with_survival(p, recalibrated(censored)).survival_NH == 1).all()
    far = replace(p, score=p.score * 1e6)
    assert np.isfinite(with_survival(far, recalibrated(p)).survival_NH).all()  # type: ignore[arg-type]


def test_intervals_and_paired_tests_are_over_patients() -> None:
    p = probable(3)
    several = replace(p, patients_N=np.array([f"p{i // 2}" for i in range(len(p))]))
    i = bootstrap([several], "integrated_brier", draws=200)
    assert i.patients == (len(p) + 1) // 2
    assert 0 < i.low < i.value < i.high
    worse = replace(several, survival_NH=np.full(several.survival_NH.shape, 0.5))  # type: ignore[union-attr]
    found = paired([several], [worse], "integrated_brier", draws=200)
    assert found.low < found.difference < found.high
    assert paired([several], [several], "horizon_gap", draws=50).degenerate


def test_without_probabilities_there_is_no_value(tmp_path: Any) -> None:
    p = probable(5)
    p.save(tmp_path / "p.npz")
    again = Predictions.load(tmp_path / "p.npz")
    assert np.array_equal(again.survival_NH, p.survival_NH)  # type: ignore[arg-type]
    bare = replace(p, survival_NH=None)
    assert np.isnan(METRICS["integrated_brier"].compute(bare))
    assert bootstrap([bare], "horizon_gap", draws=20).by == "none"
    with pytest.raises(AssertionError, match="a column a horizon"):
        replace(p, survival_NH=np.ones((len(p), 1)))
    with pytest.raises(AssertionError, match="a probability"):
        replace(p, survival_NH=1.5 * np.ones_like(p.survival_NH))

"""Resamples that are shared and forms that go case by case: the same numbers as apart, and as the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.trainer.downstream.cohorts import random_predictions
from trainer.downstream.metrics import resampling, shared, survival, weighted
from trainer.downstream.metrics.calibration import logit
from trainer.downstream.metrics.logistic import LogisticFits
from trainer.downstream.metrics.resampling import patient_draws, weights
from trainer.downstream.metrics.statistics import bootstrap, paired
from trainer.downstream.metrics.system import System
from trainer.downstream.metrics.table import KINDS, METRICS, Kind


def likelihood(w_N: np.ndarray, x_N: np.ndarray, y_N: np.ndarray, a: float, b: float) -> float:
    z_N = a + b * x_N
    return float((w_N * (np.logaddexp(0, z_N) - y_N * z_N)).sum())


@pytest.mark.parametrize("slope", [True, False])
@pytest.mark.parametrize("cases", [14, 200])
def test_fits_are_where_the_likelihood_is_largest(slope: bool, cases: int) -> None:
    """Few cases: many resamples are far from the whole set, where the series is not believed; each fit against a general optimiser."""
    rng = np.random.default_rng(cases)
    x_N = rng.normal(size=cases)
    y_N = rng.random(cases) < 1 / (1 + np.exp(-x_N))
    W_RN = rng.multinomial(cases, np.full(cases, 1 / cases), 40).astype(float)
    found_R2 = LogisticFits(np.arange(cases), y_N, x_N, slope)(W_RN)
    assert np.isfinite(found_R2).any()
    for w_N, (a, b) in zip(W_RN, found_R2, strict=True):
        if np.isnan(a):
            continue
        if slope:
            best = minimize(lambda p, w=w_N: likelihood(w, x_N, y_N, *p), [0, 1], tol=1e-12).x
        else:
            best = [*minimize(lambda p, w=w_N: likelihood(w, x_N, y_N, p[0], 1.0), [0], tol=1e-12).x, 1.0]
        assert likelihood(w_N, x_N, y_N, a, b) <= likelihood(w_N, x_N, y_N, *best) + 1e-9
        p_N = 1 / (1 + np.exp(-(a + b * x_N)))
        gradient = [(w_N * (y_N - p_N)).sum(), (w_N * (y_N - p_N) * x_N).sum() if slope else 0.0]
        assert np.abs(gradient).max() < 1e-8


def test_a_fit_does_not_depend_on_the_draws_beside_it() -> None:
    """One draw at a time starts from nothing, many start from the fit of the whole set."""
    p = random_predictions("binary", np.random.default_rng(0), 60)
    fit = LogisticFits(np.arange(len(p)), p.target == 1, logit(p.score), True)
    W_RN = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), 200).astype(float)
    alone = np.concatenate([fit(w_N[None]) for w_N in W_RN])
    np.testing.assert_allclose(fit(W_RN), alone, rtol=1e-11, atol=1e-11)


def test_weights_are_the_draws_of_each_case() -> None:
    of_N = np.array([2, 0, 0, 1, 2, 2])
    (W_RN,) = weights(of_N, 50, 3)
    (count_RP,) = patient_draws(3, 6, 50, 3)
    np.testing.assert_array_equal(W_RN, count_RP[:, of_N])
    assert not W_RN.flags.writeable
    assert next(iter(weights(of_N, 50, 3))) is W_RN


def test_rows_of_large_sets_stay_long_and_memory_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(patient_draws(40, 80, 100, 0)))
    monkeypatch.setattr(resampling, "CHUNK", 80)
    monkeypatch.setattr(resampling, "ROW", 7)
    parts = list(patient_draws(40, 80, 100, 0))
    assert [len(part) for part in parts] == [*[7] * 14, 2]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    monkeypatch.setattr(resampling, "MOST", 240)
    assert len(next(iter(patient_draws(40, 80, 100, 0)))) == 3


def test_the_first_drawn_is_found_beyond_those_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighted, "LOOK", 2)
    W_RN = np.array([[0.0, 0, 0, 2], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert weighted.first_drawn(W_RN, np.array([2, 1, 0, 3])).tolist() == [3, 1, -1, 0]
    assert weighted.constant(W_RN, np.arange(4), np.array([1.0, 2, 2, 2])).tolist() == [True, True, True, True]
    assert weighted.constant(W_RN[1:2] + 1, np.arange(4), np.array([1.0, 2, 2, 2])).tolist() == [False]


def test_a_system_gives_what_its_predictions_give() -> None:
    """Of one system for all metrics and tests, each resampled once, against everything apart."""
    rng = np.random.default_rng(4)
    a, b = ([random_predictions("ordinal", rng, 60, k=3) for _ in range(2)] for _ in range(2))
    b = [replace(q, target=a[0].target, patients_N=a[0].patients_N, keys_N=a[0].keys_N) for q in b]
    a = [replace(p, target=a[0].target, patients_N=a[0].patients_N, keys_N=a[0].keys_N) for p in a]
    one, other = System(a), System(b)
    for name, metric in METRICS.items():
        if "ordinal" in metric.kinds and metric.weighted:
            assert repr(bootstrap(one, name, draws=50)) == repr(bootstrap(a, name, draws=50))
            assert repr(paired(one, other, name, draws=50)) == repr(paired(a, b, name, draws=50))
    assert one.resamples(METRICS["brier"], 50, 0) is one.resamples(METRICS["brier"], 50, 0)


def test_stated_values_are_taken_only_where_the_form_agrees() -> None:
    p, auc = random_predictions("binary", np.random.default_rng(0), 40), METRICS["auc"]
    by_form, library = System([p], by_form=True), System([p]).values(auc)
    assert by_form.values(auc) == pytest.approx(library, abs=1e-12)
    near = [library[0] + 1e-13]
    by_form.stated(auc, near)
    assert by_form.values(auc) == near
    by_form.stated(auc, [library[0] + 1e-6])
    assert by_form.values(auc) == near
    by_form.stated(auc, [])
    assert by_form.values(auc) == near


# -------------------------------------------------------------------------------------------------- what is made once for several


@pytest.mark.parametrize("exact", [shared.EXACT, 0.0], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_kept_weights_give_the_same_bits_as_weights_of_their_own(
    kind: Kind, exact: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept ones in float32 or not, with what other metrics made of them, of two seeds in turn; others in float64, all made anew."""
    monkeypatch.setattr(shared, "EXACT", exact)
    rng = np.random.default_rng(7)
    seeds = [random_predictions(kind, rng, 60).known() for _ in range(2)]
    kept_RN, *more = weights(np.arange(len(seeds[0])) // 2, 40, 5)
    assert not more
    assert weighted.narrow(kept_RN).dtype == (np.float32 if exact else np.float64)
    for name in [n for n, m in METRICS.items() if kind in m.kinds and m.weighted]:
        for p in seeds:
            form = METRICS[name].weighted
            assert form is not None
            W_RN = kept_RN.T.copy().T
            np.testing.assert_array_equal(form(p)(kept_RN), form(p)(W_RN), err_msg=name)
            # One draw alone: sums of the whole set go another way.
            one_1N = W_RN[3:4]
            np.testing.assert_allclose(form(p)(one_1N), form(p)(W_RN)[3:4], rtol=1e-9, err_msg=name)


def test_what_is_kept_is_of_these_very_weights() -> None:
    p = random_predictions("survival", np.random.default_rng(0), 30).known()
    times = survival.times_of(p)
    assert survival.times_of(p) is times
    (one_RN,), (other_RN,) = (weights(np.arange(len(p)), 20, seed) for seed in (0, 1))
    found = survival.surviving(times, one_RN)
    assert survival.surviving(times, one_RN) is found
    assert not np.array_equal(survival.surviving(times, other_RN), found)
    own_RN = one_RN.copy()
    before = survival.surviving(times, own_RN)
    own_RN[:] = other_RN
    assert not np.array_equal(survival.surviving(times, own_RN), before)  # what can be written to may have been


def test_what_is_said_of_times_is_one_for_all_scores_of_the_same_cases() -> None:
    rng = np.random.default_rng(0)
    p, other = (random_predictions("survival", rng, 30).known() for _ in range(2))
    q = replace(p, score=rng.normal(size=len(p)))
    assert survival.times_of(q) is survival.times_of(p)
    assert survival.times_of(other) is not survival.times_of(p)
    assert survival.horizons_of(q) is survival.horizons_of(p)
    assert p.horizons_H is not None
    later = replace(p, horizons_H=p.horizons_H * 1.5, survival_NH=None)
    assert survival.horizons_of(later) is not survival.horizons_of(p)


def test_what_gets_no_interval_is_not_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    p = random_predictions("binary", np.random.default_rng(0), 40)
    monkeypatch.delattr(System, "resamples")
    i = bootstrap([p], "ece", draws=50)
    assert (i.by, i.undefined, np.isnan(i.low)) == ("none", 0, True)
    with pytest.raises(AttributeError, match="resamples"):
        bootstrap([p], "brier", draws=50)


def test_sums_beyond_a_float32_stay_in_float64() -> None:
    few_RN, many_RN = np.full((2, 10), 100.0), np.full((2, 10), 1000.0)
    for W_RN, times, narrow in ((few_RN, 1, True), (few_RN, 5, False), (many_RN, 1, False)):
        W_RN.flags.writeable = False
        assert (weighted.narrow(W_RN, times).dtype == np.float32) is narrow
    assert weighted.narrow(few_RN.copy()).dtype == np.float64

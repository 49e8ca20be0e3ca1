"""Intervals that cover and paired tests that are calibrated, in simulation; the fast resampling against the plain one."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from tests.trainer.downstream.cohorts import make, names, one_value, random_predictions
from trainer.downstream.metrics.statistics import bootstrap, entry, paired
from trainer.downstream.metrics.table import KINDS, METRICS, Kind, Predictions
from trainer.errors import UserError

PAIRS = [(name, kind) for name, m in METRICS.items() for kind in m.kinds]
COHORTS, PATIENTS, PER_PATIENT = 300, 40, 3


# -------------------------------------------------------------------------------------------------------------- fast = plain


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_weighted_resamples_equal_built_ones(name: str, kind: Kind) -> None:
    rng = np.random.default_rng(5)
    seeds = [random_predictions(kind, rng, 24, k=3, unknown=0.15)]
    seeds.append(replace(seeds[0], score=seeds[0].score[::-1]) if kind != "segmentation" else seeds[0])
    plain = replace(METRICS[name], weighted=None)
    fast, slow = bootstrap(seeds, name, draws=40), bootstrap(seeds, plain, draws=40)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-9, nan_ok=True)
    assert fast.low < fast.high or not plain.resampled
    assert replace(fast, low=0, high=0) == replace(slow, low=0, high=0)


def test_a_form_that_is_not_the_metric_is_found() -> None:
    p = random_predictions("binary", np.random.default_rng(0))
    wrong = replace(METRICS["accuracy"], weighted=METRICS["balanced_accuracy"].weighted)
    with pytest.raises(AssertionError, match="accuracy"):
        bootstrap([p], wrong, draws=10)


def test_patients_are_drawn_whole() -> None:
    """Two patients, three slices each: a draw holds each patient's slices equally often, so there are three values."""
    p = make("binary", [1, 1, 1, 0, 0, 0], [0.9, 0.9, 0.2, 0.1, 0.1, 0.1], per_patient=3)
    seen: set[float] = set()

    def spy(q: Predictions) -> float:
        seen.add(len(np.unique(q.patients_N)) + METRICS["accuracy"].point(q))
        return METRICS["accuracy"].point(q)

    bootstrap([p], replace(METRICS["accuracy"], point=spy, weighted=None), draws=50)
    assert sorted(seen) == pytest.approx([2 + 2 / 3, 2 + 5 / 6, 3])


def test_a_chunk_of_draws_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    p = random_predictions("survival", np.random.default_rng(0))
    whole = bootstrap([p], "c_index", draws=100)
    monkeypatch.setattr("trainer.downstream.metrics.resampling.CHUNK", 7 * len(p))
    monkeypatch.setattr("trainer.downstream.metrics.survival.PAIR_ROWS", 5)
    monkeypatch.setattr("trainer.downstream.metrics.survival.PAIRS_KEPT", 0)
    parts = bootstrap([replace(p)], "c_index", draws=100)  # replaced: nothing is kept of it
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_the_order_of_cases_changes_nothing() -> None:
    p = random_predictions("multiclass", np.random.default_rng(0))
    shuffled = p.take(np.random.default_rng(1).permutation(len(p)))
    for name in ("auc", "kappa_quadratic"):
        assert bootstrap([p], name, draws=50) == bootstrap([shuffled], name, draws=50)
    assert bootstrap([p, shuffled], "auc", draws=50).spread == 0


def test_seeds_share_their_resamples() -> None:
    """The interval of two seeds that are one: that of the one. Drawn apart, it would be narrower by the root of two."""
    p = random_predictions("binary", np.random.default_rng(0))
    one, two = bootstrap([p], "auc", draws=200), bootstrap([p, p], "auc", draws=200)
    assert (one.low, one.high) == (two.low, two.high)
    assert (one.spread, two.spread) == (None, 0.0)


def test_the_spread_of_seeds_is_apart_from_the_interval() -> None:
    p = make("binary", [0, 1] * 10, [0.1, 0.9] * 10)
    q = replace(p, score=1 - p.score)
    i = bootstrap([p, q], "accuracy", draws=100)
    assert (i.value, i.per_seed, i.spread, i.right) == (0.5, (1.0, 0.0), pytest.approx(np.sqrt(0.5)), (20, 0))
    assert (i.low, i.high) == (0.5, 0.5)


def test_the_same_seed_gives_the_same_numbers() -> None:
    p = random_predictions("binary", np.random.default_rng(0))
    assert bootstrap([p], "auc", seed=3) == bootstrap([p], "auc", seed=3)
    assert bootstrap([p], "auc", seed=3).low != bootstrap([p], "auc", seed=4).low


# -------------------------------------------------------------------------------------------------------------- simulation


def probability(score: np.ndarray) -> np.ndarray:
    return norm.cdf(score / 3)


def cohort(rng: np.random.Generator, systems: int, gain: float = 0.0) -> list[Predictions]:
    """Cases of one patient share a label and a patient's effect, in part common to all systems; the first is better by `gain`."""
    truth_P = np.arange(PATIENTS) % 2
    of_N = np.repeat(np.arange(PATIENTS), PER_PATIENT)
    shared_P = rng.normal(0, 1, PATIENTS)
    out = []
    for k in range(systems):
        own_P = rng.normal(0, 1, PATIENTS)
        score_N = (truth_P * (1 + gain * (k == 0)) + shared_P + own_P)[of_N] + rng.normal(0, 0.5, len(of_N))
        out.append(make("binary", truth_P[of_N], probability(score_N), per_patient=PER_PATIENT))
    return out


def test_intervals_cover_and_would_not_without_patients() -> None:
    """AUC of a cohort whose true value is known: two normals that differ by 1, of variance 2.25."""
    rng, true = np.random.default_rng(11), norm.cdf(1 / np.sqrt(4.5))
    hits, naive = [], []
    for k in range(COHORTS):
        (p,) = cohort(rng, 1)
        i = bootstrap([p], "auc", draws=300)
        hits.append(i.low <= true <= i.high)
        if k % 3 == 0:
            j = bootstrap([replace(p, patients_N=p.keys_N)], "auc", draws=300)
            naive.append(j.low <= true <= j.high)
    assert 0.90 <= np.mean(hits) <= 0.98
    assert np.mean(naive) < 0.88


@pytest.mark.parametrize("patients", [8, 30])
def test_intervals_of_a_mean_cover_with_few_patients(patients: int) -> None:
    """Per-slice Dice of cases with a patient's effect; the plain percentile interval covers 0.88 with eight patients."""
    rng, hits, size = np.random.default_rng(patients), 0, 1e6
    for _ in range(COHORTS):
        dice_N = np.repeat(rng.normal(0.5, 0.1, patients), 2) + rng.normal(0, 0.05, 2 * patients)
        both_N = np.clip(dice_N, 0, 1) * size
        p = make(
            "segmentation",
            np.full(2 * patients, size),
            np.stack([both_N, np.full(2 * patients, size)], 1),
            per_patient=2,
        )
        i = bootstrap([p], "dice_positive", draws=300)
        hits += i.low <= 0.5 <= i.high
    assert 0.90 <= hits / COHORTS <= 0.98


def test_paired_tests_are_calibrated_and_have_power() -> None:
    rng, false, true, pooled = np.random.default_rng(12), 0, 0, []
    for _ in range(COHORTS):
        a, b = cohort(rng, 2)
        t = paired([a], [b], "auc", draws=300)
        false += t.p < 0.05
        pooled.append(t.p)
        assert (t.p < 0.05) == (t.low > 0 or t.high < 0) or abs(t.p - 0.05) < 0.02  # the discrete draws blur the border
    low, high = binom.ppf([0.001, 0.999], COHORTS, 0.05) / COHORTS
    assert low <= false / COHORTS <= high
    assert 0.4 < np.mean(np.array(pooled) < 0.5) < 0.6  # not only at its tail
    for _ in range(40):
        a, b = cohort(rng, 2, gain=2.0)
        t = paired([a], [b], "auc", draws=300)
        true += t.p < 0.05 and t.difference > 0
    assert true >= 32


# ------------------------------------------------------------------------------------------------------------------ paired


def test_a_system_against_itself() -> None:
    p = random_predictions("ordinal", np.random.default_rng(0))
    t = paired([p], [p], "kappa_quadratic", draws=100)
    assert (t.difference, t.low, t.high, t.p) == (0, 0, 0, 1)


def test_paired_is_antisymmetric_and_takes_any_number_of_seeds() -> None:
    rng = np.random.default_rng(2)
    p = random_predictions("binary", rng)
    q, r = (replace(p, score=rng.random(len(p))) for _ in range(2))
    ab, ba = paired([p, q], [r], "auc", draws=200), paired([r], [p, q], "auc", draws=200)
    assert ab.difference == pytest.approx(ab.a - ab.b)
    assert (ab.difference, ab.low, ab.high, ab.p) == pytest.approx((-ba.difference, -ba.high, -ba.low, ba.p), abs=1e-12)


def test_paired_is_sharper_than_two_intervals() -> None:
    rng = np.random.default_rng(3)
    truth = np.arange(200) % 2
    hard = rng.random(200) < 0.4  # the same hard cases for both; b misses twelve more
    score = np.where(hard, 1 - truth, truth).astype(float)
    worse = score.copy()
    worse[np.flatnonzero(~hard)[:12]] = 1 - score[np.flatnonzero(~hard)[:12]]
    a, b = make("binary", truth, score), make("binary", truth, worse)
    one, two, t = bootstrap([a], "accuracy"), bootstrap([b], "accuracy"), paired([a], [b], "accuracy")
    assert one.low < two.high
    assert t.p < 0.01
    assert t.difference == pytest.approx(0.06)


def test_other_cases_are_refused_by_name() -> None:
    p = random_predictions("binary", np.random.default_rng(0), 20)
    part = p.take(np.arange(2, 20))
    with pytest.raises(UserError, match=r"2 test cases are missing from the second .*case-00000, case-00001"):
        paired([p], [part], "auc")
    with pytest.raises(UserError, match="missing from the first"):
        paired([part], [p], "auc")
    with pytest.raises(UserError, match="case-00003 is predicted twice"):
        bootstrap([p.take(np.append(np.arange(20), 3))], "auc")
    with pytest.raises(UserError, match=r"targets differ for 20 cases \(first case-00000\)"):
        paired([p], [replace(p, target=1 - p.target)], "auc")
    with pytest.raises(UserError, match="belongs to patient"):
        bootstrap([p, replace(p, patients_N=p.keys_N)], "auc")
    with pytest.raises(UserError, match="cannot be compared"):
        paired([p], [one_value("survival")], "auc")
    with pytest.raises(UserError, match="no metric 'dice'"):
        bootstrap([p], "dice")


def test_regressions_scaled_otherwise_are_refused() -> None:
    p = random_predictions("regression", np.random.default_rng(0), 20)
    for other in (np.full(4, 7.0), None):
        with pytest.raises(UserError, match="scaled by"):
            paired([p], [replace(p, scale_K=other)], "mae")


def test_rounding_errors_are_no_difference() -> None:
    rng = np.random.default_rng(7)
    seeds = [random_predictions("binary", rng)]
    seeds += [replace(seeds[0], score=rng.random(len(seeds[0]))) for _ in range(2)]
    for order in ([1, 2, 0], [2, 1, 0], [0, 2, 1]):
        t = paired(seeds, [seeds[k] for k in order], "auc", draws=200)
        assert (t.difference, t.low, t.high, t.p) == (0, 0, 0, 1)


def test_keys_are_matched_by_name_not_by_place() -> None:
    p = random_predictions("binary", np.random.default_rng(0), 20)
    assert paired([p], [p.take(np.arange(20)[::-1])], "auc", draws=50).p == 1


# -------------------------------------------------------------------------------------------------------------- degenerate


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_sets_never_crash(kind: Kind) -> None:
    one = one_value(kind)
    unknown = make(kind, np.full(one.target.shape, np.nan), one.score, scale=one.scale_K)
    for p in (one, one.take(np.array([0])), unknown):
        for name in (n for n, k in PAIRS if k == kind):
            i, t = bootstrap([p, p], name, draws=20), paired([p], [p], name, draws=20)
            assert np.isnan(i.value) == np.isnan(t.difference)
            if np.isnan(i.value) or i.patients < 2:
                assert np.isnan([i.low, i.high, t.low, t.high, t.p]).all()
                assert (i.by, t.degenerate) == ("none", False)
                continue
            assert (t.p, t.degenerate) == (1, True)
            assert i.constant == (len(p) > 1 and kind != "retrieval",) * 2, "equal ranks are no equal answers"
            if not METRICS[name].resampled:
                assert i.by == "none"
            elif i.by == "degenerate":
                assert (i.low, i.high) == (pytest.approx(i.value), pytest.approx(i.value))
            else:
                assert METRICS[name].slack is not None
                assert i.high - i.low > 0.3, "six patients alike say little"
                assert i.value in (i.low, i.high)
            json.dumps(entry([p, p], name, draws=20), allow_nan=False)


def test_draws_without_a_value_are_counted() -> None:
    p = make("binary", [1, 0, 0, 0, 0, 0], [0.9, 0.8, 0.95, 0.1, 0.2, 0.3])
    i = bootstrap([p], "auc", draws=500)
    # A draw of six has no positive with probability (5/6)^6, only positives with (1/6)^6.
    low, high = binom.ppf([1e-4, 1 - 1e-4], 500, (5 / 6) ** 6)
    assert low <= i.undefined <= high
    assert not np.isnan(i.low)


def test_unknown_cases_are_no_cases() -> None:
    rng = np.random.default_rng(0)
    p = random_predictions("binary", rng, 40)
    more = make("binary", [*p.target, *[np.nan] * 20], [*p.score, *rng.random(20)], per_patient=2)
    a, b = bootstrap([p], "auc", draws=100), bootstrap([more], "auc", draws=100)
    assert a == b
    assert (b.n, b.patients) == (40, 20)


def test_an_entry_of_a_result() -> None:
    p = make("binary", [0, 1] * 20, [0.1, 0.9] * 19 + [0.9, 0.1], per_patient=2)
    e = entry([p, p, p], "accuracy", draws=1000, seed=0)
    assert e | {"interval": 0, "convention": 0} == {
        "convention": 0, "higher_is_better": True, "ideal": None, "value": pytest.approx(0.95), "per_seed": [0.95] * 3, "spread": 0.0,
        "interval": 0, "interval_by": "bootstrap-se", "constant": [False] * 3,
        "level": 0.95, "draws": 1000, "undefined_draws": 0, "bootstrap_seed": 0, "n": 40, "patients": 20,
        "k": [38, 38, 38],
    }  # fmt: skip
    assert entry([p], "auc")["k"] is None
    assert entry([p], "auc")["spread"] is None


def test_a_thousand_draws_of_22_thousand_cases_take_seconds() -> None:
    rng, n = np.random.default_rng(0), 22_000
    target = rng.integers(0, 2, n)
    keys, patients = names(n, 3)
    p = Predictions("binary", keys, patients, target, np.clip(rng.normal(0.4 + 0.2 * target, 0.1), 0, 1))
    start = time.process_time()
    i = bootstrap([p], "auc", draws=1000)
    assert time.process_time() - start < 10
    # Hanley and McNeil's (1982) standard error, for independent cases: the patients here are.
    a, half = i.value, n / 2
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + (half - 1) * (q1 + q2 - 2 * a * a)) / half**2)
    assert (i.high - i.low) / 2 == pytest.approx(1.96 * error, rel=0.15)

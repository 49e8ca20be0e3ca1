"""Bounds in the place of intervals without width, against SciPy's and against simulated studies; constant answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from tests.trainer.downstream.cohorts import make, random_predictions
from trainer.downstream.metrics.constant import is_constant
from trainer.downstream.metrics.exact import curves, shares
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import bootstrap, entry, paired
from trainer.downstream.metrics.table import METRICS

FLAT = [0.9] * 10


def perfect(positives: int, negatives: int, per_patient: int = 1) -> Predictions:
    return make(
        "binary", [1] * positives + [0] * negatives, [0.9] * positives + [0.1] * negatives, per_patient=per_patient
    )


@pytest.mark.parametrize("n", [2, 13, 100])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_share_of_one_is_clopper_and_pearsons(n: int, level: float) -> None:
    expected = binomtest(n, n).proportion_ci(level, "exact").low
    assert 1 - shares([n], level) == pytest.approx(expected, rel=1e-9)
    # Two parts hold together at half the error each.
    both = [binomtest(k, k).proportion_ci(1 - (1 - level) / 2, "exact").low for k in (n, 7)]
    assert 1 - shares([n, 7], level) == pytest.approx(np.mean(both), rel=1e-9)


def test_every_patient_right_gives_a_bound_over_patients_not_cases() -> None:
    i = bootstrap([perfect(18, 21, per_patient=3)] * 2, "accuracy", draws=200)
    assert (i.value, i.high, i.by, i.patients) == (1, 1, "Clopper-Pearson", 13)
    assert i.low == pytest.approx(binomtest(13, 13).proportion_ci(0.95, "exact").low)
    wrong = make("binary", [1, 1, 0, 0], [0.1, 0.2, 0.9, 0.8])
    i = bootstrap([wrong], "accuracy", draws=100)
    assert (i.low, i.value, i.by) == (0, 0, "Clopper-Pearson")
    assert i.high == pytest.approx(binomtest(0, 4).proportion_ci(0.95, "exact").high)


@pytest.mark.parametrize(("m", "n"), [(6, 7), (3, 30), (20, 20)])
def test_a_perfect_curve_has_newcombes_bound(m: int, n: int) -> None:
    """The equation term by term, and what it promises: studies whose true area is the bound seldom look perfect."""
    i = bootstrap([perfect(m, n)], "auc", draws=200)
    assert (i.value, i.high, i.by) == (1, 1, "Newcombe")
    a, mean, z = i.low, (m + n) / 2, norm.ppf(0.975)
    variance = a * (1 - a) * (1 + (mean - 1) * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)
    assert 1 - a == pytest.approx(z * np.sqrt(variance), rel=1e-6)
    rng, studies = np.random.default_rng(0), 20_000
    gap = np.sqrt(2) * norm.ppf(a)
    separated = rng.normal(gap, 1, (studies, m)).min(1) > rng.normal(0, 1, (studies, n)).max(1)
    assert separated.mean() < 0.035


def test_the_areas_of_several_classes_hold_together() -> None:
    assert curves([(5, 10)] * 3, 0.95) == pytest.approx(curves([(5, 10)], 1 - 0.05 / 3))
    p = make("multiclass", np.repeat([0, 1, 2], 5), np.repeat(np.eye(3), 5, axis=0))
    i = bootstrap([p], "auc", draws=100)
    assert (i.by, i.low) == ("Newcombe", pytest.approx(1 - curves([(5, 10)] * 3, 0.95)))
    assert bootstrap([p], "auc_micro", draws=100).low == pytest.approx(1 - curves([(15, 15)], 0.95))


def test_masks_that_are_all_right_or_all_empty() -> None:
    p = make("segmentation", [30, 0, 20, 10], [[30, 30], [0, 0], [20, 20], [10, 10]], per_patient=2)
    for name, patients in (("dice_patient", 2), ("dice_all", 2), ("dice_positive", 2), ("iou_patient", 2)):
        i = bootstrap([p], name, draws=100)
        assert (i.by, i.low) == ("Clopper-Pearson", pytest.approx(0.025 ** (1 / patients)))
    nothing = make("segmentation", [30, 0, 20, 10], np.zeros((4, 2)), per_patient=2)
    i = bootstrap([nothing], "dice_patient", draws=100)
    assert (i.low, i.value, i.constant) == (0, 0, (True,))
    assert i.high == pytest.approx(1 - 0.025**0.5)


def test_what_has_no_bound_is_marked() -> None:
    p = make("ordinal", [0, 1, 2] * 4, np.tile([1, 0.2, 0.1], (12, 1)))
    i = bootstrap([p], "kappa_quadratic", draws=100)
    assert (i.value, i.low, i.high, i.by, i.constant) == (0, 0, 0, "degenerate", (True,))
    assert paired([p], [p], "kappa_quadratic", draws=100).degenerate
    e = entry([p, p], "kappa_quadratic", draws=100)
    assert (e["interval_by"], e["constant"]) == ("degenerate", [True, True])
    assert bootstrap([perfect(4, 4)], "f1_macro", draws=100).by == "degenerate"
    # Half right in every patient: no resample differs, and 1/2 is no end that a bound is known for.
    half = make("binary", [1, 1] * 6, [0.9, 0.1] * 6, per_patient=2)
    assert bootstrap([half], "accuracy", draws=100).by == "degenerate"


def test_an_interval_with_width_is_the_bootstraps() -> None:
    i = bootstrap([random_predictions("binary", np.random.default_rng(0))], "auc", draws=200)
    assert (i.by, i.constant) == ("bootstrap-se", (False,))
    assert i.low < i.value < i.high


@pytest.mark.parametrize(
    ("p", "by_scores", "by_decisions"),
    [
        (make("binary", [0, 1] * 5, FLAT), True, True),
        (make("binary", [0, 1] * 5, np.linspace(0.6, 0.9, 10)), False, True),
        (make("binary", [0, 1] * 5, np.linspace(0.1, 0.9, 10)), False, False),
        (make("multiclass", [0, 1] * 5, np.stack([np.linspace(0.6, 0.9, 10), np.linspace(0.4, 0.1, 10)], 1)), False, True),
        (make("multilabel", [[0, 1], [1, 0]] * 5, np.stack([np.linspace(0.6, 0.9, 10), FLAT], 1)), False, True),
        (make("multilabel", [[0, 1], [1, 0]] * 5, np.stack([np.linspace(0.1, 0.9, 10), FLAT], 1)), False, False),
        (make("regression", np.arange(10.0), [3.0] * 10), True, True),
        (make("survival", [[1, 1], [2, 0]] * 5, np.zeros(10)), True, True),
        (make("binary", [1], [0.7]), False, False),
    ],
)  # fmt: skip
def test_constant_answers(p: Predictions, by_scores: bool, by_decisions: bool) -> None:
    assert (is_constant(p, decided=False), is_constant(p, decided=True)) == (by_scores, by_decisions)


def test_which_metrics_look_at_decisions() -> None:
    assert {n for n, m in METRICS.items() if m.decides} == {
        "accuracy", "balanced_accuracy", "f1_macro", "kappa_quadratic", "kappa_contig",
    }  # fmt: skip

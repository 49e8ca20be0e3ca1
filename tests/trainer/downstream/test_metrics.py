"""Each metric against an independent computation: plain loops written from the definition, lifelines, scikit-learn by other ways."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pytest

from tests.trainer.downstream.cohorts import make, one_value, random_predictions
from tests.trainer.downstream.metric_oracles import NAN, ORACLES
from trainer.downstream.metrics.table import DEFAULTS, KINDS, METRICS, Kind, Predictions

# The metrics kept for comparison with other code are tested in test_legacy_metrics.py.
WHOLE_SET = {name: m for name, m in METRICS.items() if m.weighted is not None and name != "dice_contig"}
PAIRS = [(name, kind) for name, m in WHOLE_SET.items() for kind in m.kinds]


def compute_quietly(name: str, p: Predictions) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a library that warns of an undefined value has been asked for one
        return METRICS[name].compute(p)


def weighted_once(name: str, p: Predictions) -> float:
    form, known = METRICS[name].weighted, p.known()
    assert form is not None
    return float(form(known)(np.ones((1, len(known))))[0]) if len(known) else NAN


def test_every_metric_has_an_oracle() -> None:
    assert set(ORACLES) == set(WHOLE_SET)
    assert set(METRICS) - set(WHOLE_SET) == {"kappa_contig", "auc_contig", "dice_contig"}
    assert set(DEFAULTS) == set(KINDS)
    assert all(kind in METRICS[name].kinds for kind, chosen in DEFAULTS.items() for name in chosen)


@pytest.mark.parametrize("unknown", [0.0, 0.2, 0.9])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_equals_the_definition_on_random_sets(name: str, kind: Kind, unknown: float) -> None:
    rng = np.random.default_rng(sum(map(ord, name + kind)))
    values = []
    for n in (1, 2, 5, 30, 61):
        p = random_predictions(kind, rng, n, unknown=unknown)
        value = compute_quietly(name, p)
        np.testing.assert_allclose(
            [value, weighted_once(name, p)], ORACLES[name](p), rtol=1e-9, atol=1e-12, err_msg=f"n={n}"
        )
        values.append(value)
    assert unknown == 0.9 or not np.isnan(values[-1])  # the comparison above was of numbers


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_equals_the_definition_on_degenerate_sets(name: str, kind: Kind) -> None:
    one = one_value(kind)
    single = one.take(np.array([0]))
    unknown = make(kind, np.full(one.target.shape, np.nan), one.score, scale=one.scale_K)
    for p in (one, single, unknown, one.take(np.array([], dtype=int))):
        value = compute_quietly(name, p)
        expected = ORACLES[name](p) if len(p.known()) else NAN
        np.testing.assert_allclose([value, weighted_once(name, p)], expected, rtol=1e-12)


# ----------------------------------------------------------------------------------------------------- values worked out by hand


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("accuracy", "binary", 1.0),
        ("balanced_accuracy", "binary", 1.0),  # the recall of the only class
        ("auc", "binary", NAN),
        ("average_precision", "binary", 1.0),  # nothing to be wrong about
        ("auc", "multilabel", NAN),
        ("auc_micro", "multilabel", NAN),
        ("auc", "multiclass", NAN),
        ("auc_micro", "multiclass", 1.0),  # pooled, the classes that nobody has are the negatives
        ("kappa_quadratic", "ordinal", NAN),  # 0 / 0
        ("brier", "binary", 0.09),
        ("ece", "multilabel", 0.3),
        ("brier", "multiclass", 0.0),
        ("calibration_intercept", "binary", NAN),  # no shift is enough
        ("calibration_slope", "binary", NAN),
        ("mae", "regression", 0.2),
        ("mse", "regression", 0.01),
        ("r2", "regression", NAN),
        ("spearman", "regression", NAN),
        ("pearson", "regression", NAN),
        ("c_index", "survival", NAN),  # no two times differ
        ("c_uno", "survival", NAN),
        ("time_auc", "survival", NAN),
        ("dice_patient", "segmentation", NAN),
        ("dice_positive", "segmentation", NAN),
        ("dice_all", "segmentation", 1.0),
        ("image_auc", "segmentation", NAN),
    ],
)
def test_one_value_everywhere(name: str, kind: Kind, expected: float) -> None:
    np.testing.assert_allclose(METRICS[name].compute(one_value(kind)), expected, rtol=1e-12)


def test_dice_conventions_on_masks_drawn_by_hand() -> None:
    """Patient a: two slices, one of them empty with a false pixel; patient b: all empty; patient c: missed altogether."""
    truth = np.zeros((5, 2, 4), bool)
    predicted = np.zeros_like(truth)
    truth[0, 0, :3] = True  # a, slice 0: three true pixels, two of them found, none false
    predicted[0, 0, :2] = True
    predicted[1, 1, 0] = True  # a, slice 1: empty, one false pixel
    truth[4, 1, 1:] = True  # c: three true pixels, none found
    counts = np.stack([(truth & predicted).sum((1, 2)), predicted.sum((1, 2))], 1)
    p = Predictions("segmentation", list("01234"), list("aabbc"), truth.sum((1, 2)), counts)
    a = 2 * 2 / (3 + 3)
    assert METRICS["dice_patient"].compute(p) == pytest.approx((a + 0) / 2)
    assert METRICS["iou_patient"].compute(p) == pytest.approx((2 / 4 + 0) / 2)
    assert METRICS["dice_positive"].compute(p) == pytest.approx((2 * 2 / (3 + 2) + 0) / 2)
    assert METRICS["dice_all"].compute(p) == pytest.approx((0.8 + 0 + 1 + 1 + 0) / 5)
    assert METRICS["image_auc"].compute(p) == pytest.approx(((1 + 1 + 1) + (0 + 0.5 + 0.5)) / 6)


def test_grades_are_decoded_from_their_thresholds() -> None:
    p = make("ordinal", [0, 1, 2, 2], [[0.2, 0.1, 0.1], [0.9, 0.6, 0.5], [1, 0.9, 0.8], [0.3, 0.9, 0.2]])
    assert p.decided().tolist() == [0, 1, 2, 0]
    assert METRICS["accuracy"].right(p) == 3
    assert METRICS["accuracy"].compute(p) == 3 / 4


def test_the_published_sum_of_squares_is_the_number_of_targets_for_the_mean() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal([60, 27, 140, 80], [8, 4, 20, 10], (500, 4))
    p = make("regression", target, np.tile(target.mean(0), (500, 1)), scale=target.std(0))
    assert METRICS["mse"].compute(p) == pytest.approx(4)


def test_harrell_by_hand() -> None:
    """Pairs: (1e, 2c) right, (1e, 3e) wrong, (2c, 3e) not comparable, (1e, 3c) tied risk, (3e, 3c) right."""
    p = make("survival", [[1, 1], [2, 0], [3, 1], [3, 0]], [0.5, 0.1, 0.9, 0.5])
    assert METRICS["c_index"].compute(p) == pytest.approx((1 + 0 + 0.5 + 1) / 4)


def test_counts_are_of_known_cases() -> None:
    p = make("binary", [1, np.nan, 0, 1], [0.9, 0.9, 0.9, 0.6])
    assert (METRICS["accuracy"].right(p), len(p.known())) == (2, 3)
    assert METRICS["auc"].right(p) is None


def test_equal_columns_agree_between_kinds() -> None:
    """Two classes: macro over classes, one column and two labels are the same question."""
    rng = np.random.default_rng(3)
    p = random_predictions("binary", rng, 50)
    both = np.stack([1 - p.score, p.score], 1)
    classes = make("multiclass", p.target, both)
    labels = make("multilabel", np.stack([1 - p.target, p.target], 1), both)
    values = [METRICS["auc"].compute(q) for q in (p, classes, labels)]
    assert max(values) - min(values) < 1e-12


def test_oracles_know_ties() -> None:
    """The random sets above do hold ties in scores, in times and in targets: without them half of the definitions is untested."""
    rng = np.random.default_rng(0)
    for kind in ("binary", "survival", "regression"):
        p = random_predictions(kind, rng, 60)
        assert any(a == b for a, b in combinations(p.scores[:, 0].tolist(), 2))
        assert any(a == b for a, b in combinations(p.targets[:, 0].tolist(), 2))

"""Each metric against an independent computation: plain loops written from the definition, lifelines, scikit-learn by other ways."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.downstream.cohorts import make, one_value, random_predictions
from trainer.downstream.metrics.table import DEFAULTS, KINDS, METRICS, Kind, Predictions, metric_of
from trainer.errors import UserError

NAN = float("nan")
# The metrics kept for comparison with other code are tested in test_legacy_metrics.py.
WHOLE_SET = {name: m for name, m in METRICS.items() if m.weighted is not None and name != "dice_contig"}
PAIRS = [(name, kind) for name, m in WHOLE_SET.items() for kind in m.kinds]


# ------------------------------------------------------------------------------------------- independent computations, by loops


def mean_known(values: list[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return sum(known) / len(known) if known else NAN


def pair_auc(truth: np.ndarray, score: np.ndarray) -> float:
    wins = [1.0 if p > q else 0.5 if p == q else 0.0 for p in score[truth] for q in score[~truth]]
    return sum(wins) / len(wins) if wins else NAN


def stepwise_ap(truth: np.ndarray, score: np.ndarray) -> float:
    if not truth.any():
        return NAN
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        seen = score >= threshold
        recall = (seen & truth).sum() / truth.sum()
        total += (recall - recall_before) * (seen & truth).sum() / seen.sum()
        recall_before = recall
    return float(total)


def questions(p: Predictions) -> list[tuple[np.ndarray, np.ndarray]]:
    known = ~np.isnan(p.target)
    if p.kind == "binary":
        return [(p.target[known] == 1, p.score[known])]
    if p.kind == "multilabel":
        return [(p.target[known[:, k], k] == 1, p.score[known[:, k], k]) for k in range(p.target.shape[1])]
    grades = range(p.score.shape[1])
    if p.kind == "multiclass":
        return [(p.target[known] == k, p.score[known, k]) for k in grades]
    return [(p.target[known] >= k, p.score[known, k]) for k in grades if k]


def pooled(of: Callable[..., float]) -> Callable[[Predictions], float]:
    return lambda p: of(*(np.concatenate(x) for x in zip(*questions(p), strict=True)))


def over_questions(of: Callable[..., float]) -> Callable[[Predictions], float]:
    return lambda p: mean_known([of(*q) for q in questions(p)])


def decisions(p: Predictions) -> list[tuple[int, int]]:
    out = []
    for t, s in zip(p.target, p.score, strict=True):
        if np.isnan(t):
            continue
        if p.kind == "binary":
            d = int(s > 0.5)
        elif p.kind == "multiclass":
            d = max(range(len(s)), key=lambda k: (s[k], -k))
        else:
            d = max(sum(x > 0.5 for x in s) - 1, 0)
        out.append((int(t), int(d)))
    return out


def accuracy(p: Predictions) -> float:
    d = decisions(p)
    return sum(t == y for t, y in d) / len(d) if d else NAN


def balanced(p: Predictions) -> float:
    recalls = defaultdict(list)
    for t, y in decisions(p):
        recalls[t].append(t == y)
    return mean_known([sum(r) / len(r) for r in recalls.values()])


def f1(pairs: list[tuple[bool, bool]]) -> float:
    right, either = sum(t and y for t, y in pairs), sum(int(t) + int(y) for t, y in pairs)
    return 2 * right / either if either else NAN


def f1_macro(p: Predictions) -> float:
    if p.kind == "multilabel":
        return mean_known([f1(list(zip(t, s > 0.5, strict=True))) for t, s in questions(p)])
    d = decisions(p)
    return mean_known([f1([(t == c, y == c) for t, y in d]) for c in range(9)])


def kappa(p: Predictions) -> float:
    d = decisions(p)
    if not d:
        return NAN
    seen = sum((t - y) ** 2 for t, y in d) / len(d)
    chance = sum((t - y) ** 2 for t, _ in d for _, y in d) / len(d) ** 2
    return 1 - seen / chance if chance else NAN


def brier(p: Predictions) -> float:
    parts = [
        sum((s - t) ** 2 for t, s in zip(truth.tolist(), score.tolist(), strict=True)) for truth, score in questions(p)
    ]
    each = [v / len(q[0]) if len(q[0]) else NAN for v, q in zip(parts, questions(p), strict=True)]
    return sum(each) if p.kind == "multiclass" else mean_known(each)


def binned(p: Predictions) -> float:
    asked = questions(p)
    if p.kind == "multiclass":
        d = decisions(p)
        asked = [(np.array([t == y for t, y in d]), p.score[~np.isnan(p.target)].max(1))]
    return mean_known([gaps(t.tolist(), s.tolist()) for t, s in asked])


def gaps(truth: list[bool], score: list[float]) -> float:
    bins: dict[int, list[tuple[bool, float]]] = defaultdict(list)
    for t, s in zip(truth, score, strict=True):
        bins[min(int(s * 10), 9)].append((t, s))
    return sum(abs(sum(t - s for t, s in b)) for b in bins.values()) / len(truth) if truth else NAN


def likeliest(truth: np.ndarray, score: np.ndarray, slope: bool) -> float:
    """Roots of the likelihood's derivatives, by SciPy from a coarse search; NaN where there is no maximum."""
    from scipy.optimize import minimize, root
    from scipy.special import expit
    from scipy.special import logit as log_odds

    x, y = log_odds(score.clip(1e-7, 1 - 1e-7)), truth.astype(float)
    if not truth.any() or truth.all():
        return NAN
    if not slope:
        return float(root(lambda a: (y - expit(a[0] + x)).sum(), 0.0, tol=1e-14).x[0])
    if x[truth].min() >= x[~truth].max() or x[~truth].min() >= x[truth].max():
        return NAN
    start = minimize(lambda t: np.logaddexp(0, -(2 * y - 1) * (t[0] + t[1] * x)).sum(), [0.0, 0.0]).x
    return float(root(lambda t: [(r := y - expit(t[0] + t[1] * x)).sum(), r @ x], start, tol=1e-14).x[1])


def over_targets(of: Callable[..., float]) -> Callable[[Predictions], float]:
    def value(p: Predictions) -> float:
        out = []
        for y, s in zip(p.targets.T, p.scores.T, strict=True):
            known = ~np.isnan(y)
            out.append(of(y[known], s[known]) if known.any() else NAN)
        return mean_known(out)

    return value


def summed_mse(p: Predictions) -> float:
    assert p.scale_K is not None
    terms = []
    for y, s, c in zip(p.targets.T, p.scores.T, p.scale_K, strict=True):
        errors = [((a - b) / c) ** 2 for a, b in zip(y, s, strict=True) if not np.isnan(a)]
        terms.append(sum(errors) / len(errors) if errors else NAN)
    return sum(terms)


def determination(y: np.ndarray, s: np.ndarray) -> float:
    return 1 - ((y - s) ** 2).sum() / ((y - y.mean()) ** 2).sum() if len(set(y)) > 1 else NAN


def pearson(y: np.ndarray, s: np.ndarray) -> float:
    return float(np.corrcoef(y, s)[0, 1]) if len(set(y)) > 1 and len(set(s)) > 1 else NAN


def spearman(y: np.ndarray, s: np.ndarray) -> float:
    rank = [np.array([(v < x).sum() + (v == x).sum() / 2 for x in v]) for v in (y, s)]
    return pearson(*rank)


def harrell(p: Predictions) -> float:
    from lifelines.utils import concordance_index

    known = ~np.isnan(p.target).any(1)
    time, event = p.target[known].T
    try:
        return concordance_index(time, -p.score[known], event)
    except (ZeroDivisionError, ValueError):
        return NAN


def beyond(time: list[float], ended: list[bool], first: list[bool], at: float) -> float:
    """Kaplan and Meier's estimate that `ended` is still to come beyond `at`; of equal times `first` leave before."""
    value = 1.0
    for t in sorted({t for t in time if t <= at}):
        now = sum(x == t and e for x, e in zip(time, ended, strict=True))
        risk = sum(x >= t for x in time) - sum(x == t and f for x, f in zip(time, first, strict=True))
        value *= 1 - now / risk if now else 1
    return value


def followed(p: Predictions) -> tuple[list[float], list[bool], list[bool], list[float]]:
    known = ~np.isnan(p.target).any(1)
    event = (p.target[known, 1] == 1).tolist()
    return p.target[known, 0].tolist(), event, [not e for e in event], p.score[known].tolist()


def uno(p: Predictions) -> float:
    time, event, censored, risk = followed(p)
    right = pairs = 0.0
    for t, e, r in zip(time, event, risk, strict=True):
        if not e or t >= p.horizons_H[-1]:
            continue
        g = beyond(time, censored, event, t)
        if g == 0:
            return NAN
        for u, f, s in zip(time, event, risk, strict=True):
            if u > t or (u == t and not f):
                right += (r > s) / g**2 + 0.5 * (r == s) / g**2
                pairs += 1 / g**2
    return right / pairs if pairs else NAN


def over_time(p: Predictions) -> float:
    time, event, censored, risk = followed(p)
    at_all = [t for t, e in zip(time, event, strict=True) if e and t <= p.horizons_H[-1]]
    if any(beyond(time, censored, event, t) == 0 for t in at_all):
        return NAN
    total = weights = before = 0.0
    none = [False] * len(time)
    for h in p.horizons_H:
        cases = [
            (r, 1 / beyond(time, censored, event, t)) for t, e, r in zip(time, event, risk, strict=True) if e and t <= h
        ]
        controls = [r for t, r in zip(time, risk, strict=True) if t > h]
        gained = (1 - beyond(time, event, none, h)) - before
        before += gained
        if cases and controls:
            wins = sum(w * ((r > c) + 0.5 * (r == c)) for r, w in cases for c in controls)
            total += gained * wins / (sum(w for _, w in cases) * len(controls))
            weights += gained
    return total / weights if weights else NAN


def graf(p: Predictions) -> float:
    time, event, censored, _ = followed(p)
    survival = p.survival_NH[~np.isnan(p.target).any(1)]
    scores: list[float] = []
    for k, h in enumerate(p.horizons_H):
        total, at = 0.0, beyond(time, censored, event, h)
        for t, e, s in zip(time, event, survival[:, k], strict=True):
            if t <= h and e:
                g = beyond(time, censored, event, t)
                total += s**2 / g if g else NAN
            elif t > h:
                total += (1 - s) ** 2 / at
        scores.append(total / len(time) if at and len(time) else NAN)
    span = scores[: next((i for i, s in enumerate(scores) if np.isnan(s)), len(scores))]
    if len(span) < 2:
        return span[0] if span else NAN
    wide = np.diff(p.horizons_H[: len(span)])
    return float(sum(w * (a + b) / 2 for w, a, b in zip(wide, span, span[1:], strict=False)) / wide.sum())


def at_middle(p: Predictions) -> float:
    time, event, _, _ = followed(p)
    k = {1: 0, 2: 0, 3: 1, 4: 1}[len(p.horizons_H)]
    said = 1 - p.survival_NH[~np.isnan(p.target).any(1), k]
    return 1 - beyond(time, event, [False] * len(time), p.horizons_H[k]) - said.mean() if len(time) else NAN


def slices(p: Predictions) -> list[tuple[str, float, float, float]]:
    rows = zip(p.patients_N.tolist(), p.target, *p.score.T, strict=True)
    return [(q, t, both, predicted) for q, t, both, predicted in rows if not np.isnan(t)]


def volumes(p: Predictions) -> list[tuple[float, float, float]]:
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for patient, *counts in slices(p):
        sums[patient] += counts
    return [tuple(v) for v in sums.values()]  # type: ignore[misc]


def ranked(column: int, k: int | None) -> Callable[[Predictions], float]:
    """Share of ranks within the first k; the middle rank where k is None."""

    def of(p: Predictions) -> float:
        found = sorted(s for s, t in zip(p.score[:, column], p.target, strict=True) if not np.isnan(t))
        if not found:
            return NAN
        if k is None:
            return (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2
        return sum(s <= k for s in found) / len(found)

    return of


ORACLES: dict[str, Callable[[Predictions], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced,
    "auc": over_questions(pair_auc),
    "auc_micro": pooled(pair_auc),
    "auc_any": lambda p: pair_auc(*questions(p)[0]),
    "average_precision": over_questions(stepwise_ap),
    "f1_macro": f1_macro,
    "kappa_quadratic": kappa,
    "mse": summed_mse,
    "mae": over_targets(lambda y, s: float(np.abs(y - s).mean())),
    "r2": over_targets(determination),
    "spearman": over_targets(spearman),
    "pearson": over_targets(pearson),
    "c_index": harrell,
    "c_uno": uno,
    "time_auc": over_time,
    "integrated_brier": graf,
    "horizon_gap": at_middle,
    "brier": brier,
    "ece": binned,
    "calibration_intercept": over_questions(lambda t, s: likeliest(t, s, slope=False)),
    "calibration_slope": over_questions(lambda t, s: likeliest(t, s, slope=True)),
    "dice_patient": lambda p: mean_known([2 * b / (t + y) if t + y else NAN for t, b, y in volumes(p)]),
    "iou_patient": lambda p: mean_known([b / (t + y - b) if t + y else NAN for t, b, y in volumes(p)]),
    "dice_positive": lambda p: mean_known([2 * b / (t + y) if t else NAN for _, t, b, y in slices(p)]),
    "dice_all": lambda p: mean_known([2 * b / (t + y) if t + y else 1.0 for _, t, b, y in slices(p)]),
    "image_auc": lambda p: pair_auc(
        np.array([t > 0 for _, t, _, _ in slices(p)], bool), np.array([s[3] for s in slices(p)])
    ),
    **{
        f"{side}_{f'r{k}' if k else 'median_rank'}": ranked(column, k)
        for column, side in enumerate(("image_to_report", "report_to_image"))
        for k in (1, 5, 10, None)
    },
}


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


# -------------------------------------------------------------------------------------------------------- refused, saved, loaded


@pytest.mark.parametrize(
    ("kind", "target", "score", "says"),
    [
        ("binary", [0, 1], [0.1, NAN], "not finite"),
        ("binary", [0, 1], [0.1, np.inf], "not finite"),
        ("binary", [0, 1], [-3, 4], "logits"),
        ("binary", [0, 11], [0.1, 0.2], "0, 1 or NaN"),
        ("binary", [0, 1, 1], [0.1, 0.2], "shape"),
        ("binary", [[0], [1]], [0.1, 0.2], "shape"),
        ("multiclass", [0, 2], [[0.5, 0.5], [0.5, 0.5]], "whole numbers from 0 to 1"),
        ("multiclass", [0, 1], [[0.5, 0.9], [0.5, 0.5]], "sum to one"),
        ("ordinal", [0, 1.5], [[1, 0.5], [1, 0.5]], "whole numbers"),
        ("multilabel", [[0, 1]], [[0.1, 0.2, 0.3]], "differ in shape"),
        ("regression", [1, np.inf], [1, 2], "finite"),
        ("survival", [[1, 2]], [0], "events"),
        ("survival", [[1, 1, 0]], [0], "two columns"),
        ("segmentation", [3], [[4, 5]], "intersection"),
        ("segmentation", [3], [[2, 1]], "intersection"),
        ("detection", [3], [[2, 1]], "no such kind"),
    ],
)
def test_what_is_no_prediction_is_refused(kind: Kind, target: object, score: object, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        make(kind, target, score)


def test_mse_needs_the_deviations_of_training() -> None:
    with pytest.raises(AssertionError, match="scale_K"):
        METRICS["mse"].compute(make("regression", [1, 2], [1, 2]))
    with pytest.raises(AssertionError, match="scale"):
        make("regression", [1, 2], [1, 2], scale=[0.0])


def test_a_metric_of_another_kind_is_refused() -> None:
    assert metric_of("auc", "binary") is METRICS["auc"]
    with pytest.raises(UserError, match="'c_index' of a binary task"):
        metric_of("c_index", "binary")
    with pytest.raises(UserError, match="did you mean 'dice_patient'"):
        metric_of("dice_patients", "segmentation")


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind: Kind, tmp_path: Path) -> None:
    p = random_predictions(kind, np.random.default_rng(1), 20, unknown=0.1)
    p.save(tmp_path / "deep" / "seed-0.npz")
    q = Predictions.load(tmp_path / "deep" / "seed-0.npz")
    assert (q.kind, q.classes) == (p.kind, p.classes)
    for a, b in zip(*[(x.keys_N, x.patients_N, x.target, x.score) for x in (p, q)], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (p.scale_K is None) == (q.scale_K is None)
    q.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "deep" / "seed-0.npz").read_bytes()
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["seed-0.npz"]


def test_a_file_that_holds_no_predictions_is_named(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.npz"
    whole = {
        "key": ["a"],
        "patient": ["a"],
        "target": [0.0],
        "score": [0.5],
        "classes": ["no", "yes"],
        "kind": "binary",
    }
    broken: list[dict[str, object]] = [
        {k: v for k, v in whole.items() if k != "target"},
        whole | {"kind": "binry"},
        whole | {"score": [NAN]},
        whole | {"score": ["high"]},
        whole | {"key": np.array([{"a": 1}], dtype=object)},
        whole | {"key": 3.0},
    ]
    for content in broken:
        np.savez(path, allow_pickle=True, **content)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="seed-0"):
            Predictions.load(path)
    for raw in (b"", b"PK\x03\x04 cut off", b"text"):
        path.write_bytes(raw)
        with pytest.raises(UserError, match="seed-0"):
            Predictions.load(path)
    with pytest.raises(UserError, match="nothing"):
        Predictions.load(tmp_path / "nothing.npz")


def test_oracles_know_ties() -> None:
    """The random sets above do hold ties in scores, in times and in targets: without them half of the definitions is untested."""
    rng = np.random.default_rng(0)
    for kind in ("binary", "survival", "regression"):
        p = random_predictions(kind, rng, 60)
        assert any(a == b for a, b in combinations(p.scores[:, 0].tolist(), 2))
        assert any(a == b for a, b in combinations(p.targets[:, 0].tolist(), 2))

"""Every metric computed anew by loops over cases, from its definition: what the metrics are compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from trainer.downstream.metrics.table import Predictions

NAN = float("nan")


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

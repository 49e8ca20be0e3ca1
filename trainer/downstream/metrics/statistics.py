"""How sure a number is: intervals and paired tests by resampling test patients.

A patient's cases are not independent, so patients are drawn with replacement, each with all of its cases (the cluster bootstrap).
One draw is applied to all seeds, and in a paired test to both systems; the quantity is the mean over seeds. In the interval of one
system the seeds are taken as they are: their spread is another number.

A paired test says which system is better, not which trainings of it were: other seeds would have given other numbers. Each resample
therefore adds, for each system with several seeds, a draw of how far their mean may be from that of all seeds: Student's t with S - 1
degrees of freedom times the standard error of the S values (the two-sample problem as Behrens and Fisher have it). Three seeds of which
one is far off are then no evidence. Of one seed nothing is known, and nothing is added: `seeds` of the test says so.

Intervals are percentiles, at levels widened for few patients (Hesterberg 2015, "What teachers should know about the bootstrap",
section 5: the percentile interval is narrow by the factor sqrt((n-1)/n) and by normal instead of Student quantiles). With patients
by the hundred this is the plain percentile interval. The p-value of a paired test is the level at which that interval just
leaves out zero.

Where no resample differs from any other (every patient right, or one answer for all), the bootstrap has nothing to say: an exact
bound stands in its place where the metric has one (exact.py), else the interval is marked as degenerate.

Shape letters: S seeds, R resamples, N cases, P patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from trainer.downstream.metrics.constant import is_constant
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import Metric, metric_of
from trainer.errors import UserError

Differences = TypeVar("Differences", float, np.ndarray)

# Weights held at a time: 3 MB of them stay in the processor's cache and bound the memory for any number of cases.
CHUNK = 400_000
ROUNDING = 1e-12
NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A metric over seeds and its bootstrap interval.

    value         mean over seeds
    per_seed      one value a seed
    spread        standard deviation over seeds (ddof 1); None for one seed
    low, high     the interval of `value` over resampled patients; NaN for fewer than two patients, or without a value
    by            what gave it: "bootstrap", an exact bound's name, "degenerate" (no resample differs, no bound is known), "none"
    constant      for each seed, whether its answer is the same for all cases as far as the metric looks (constant.py)
    undefined     resamples in which the metric has no value (one class only, say); they are left out of the interval
    n, patients   cases and patients with a known target
    right         k of k / n for each seed, where the metric is a count
    """

    metric: str
    value: float
    per_seed: tuple[float, ...]
    spread: float | None
    low: float
    high: float
    level: float
    draws: int
    seed: int
    undefined: int
    n: int
    patients: int
    right: tuple[int, ...] | None
    by: str = "bootstrap"
    constant: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Paired:
    """System a against system b on the same test cases.

    difference    mean over seeds of a less the one of b
    low, high     its interval over resampled patients and other seeds; `degenerate` where no resample differs
    p             two-sided; below 1 - level exactly where the interval leaves out zero, but for ties; NaN without a value
    seeds         of a and of b; what one seed does not tell is in neither interval nor p
    error         standard deviation of the difference over resampled patients, the seeds as they are
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    level: float
    p: float
    draws: int
    seed: int
    undefined: int
    n: int
    patients: int
    degenerate: bool = False
    seeds: tuple[int, int] = (1, 1)
    error: float = NAN


def bootstrap(
    predictions: Sequence[Predictions], metric: Metric | str, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The metric of one system, with predictions of the same test cases by each of its seeds.

    Raises:
        UserError: the seeds predict different cases, or there is no such metric.
    """
    seeds = _aligned(predictions)
    metric = _metric(metric, seeds[0])
    each = [metric.compute(p) for p in seeds]
    value, known = fmean(each), seeds[0].known()
    patients = len(np.unique(known.patients_N))
    resampled_R = _resampled([seeds], [each], metric, draws, seed)[0]
    low, high = percentiles(resampled_R, patients, level) if value == value else (NAN, NAN)
    low, high, by = _bounded(metric, seeds, each, (low, high), level)
    return Interval(
        metric.name, value, tuple(each), _spread(each), low, high, level, draws, seed, int(np.isnan(resampled_R).sum()),
        len(known), patients, tuple(int(metric.right(p) or 0) for p in seeds) if metric.count else None,
        by, tuple(is_constant(p, metric.decides) for p in seeds),
    )  # fmt: skip


def _bounded(
    metric: Metric, seeds: Sequence[Predictions], each: Sequence[float], interval: tuple[float, float], level: float
) -> tuple[float, float, str]:
    """The interval, or an exact bound in the place of one without width; and what gave it."""
    low, high = interval
    if not metric.resampled:
        return NAN, NAN, "none"
    if low != low:
        return low, high, "none"
    if high - low > ROUNDING:
        return low, high, "bootstrap"
    end = next((e for e in (0.0, 1.0) if all(abs(v - e) <= ROUNDING for v in each)), None)
    if metric.slack is None or end is None:
        return low, high, "degenerate"
    by, slack = max((metric.slack(p.known(), level) for p in seeds), key=lambda found: found[1])
    return (end, slack, by) if end == 0 else (1 - slack, end, by)


def paired(
    a: Sequence[Predictions], b: Sequence[Predictions], metric: Metric | str, draws: int = 1000, seed: int = 0,
    level: float = 0.95,
) -> Paired:  # fmt: skip
    """Compares two systems on the same test cases, by the difference of their means over seeds; the seeds' number may differ.

    Raises:
        UserError: the cases, their patients or their truth differ, or there is no such metric.
    """
    both = _aligned([*a, *b])
    metric = _metric(metric, both[0])
    systems = both[: len(a)], both[len(a) :]
    each = [[metric.compute(p) for p in s] for s in systems]
    mean_a, mean_b = (fmean(e) for e in each)
    known = both[0].known()
    patients = len(np.unique(known.patients_N))
    resampled_a, resampled_b = _resampled(systems, each, metric, draws, seed)
    difference, by_patients_R = float(_exact(mean_a - mean_b)), _exact(resampled_a - resampled_b)
    difference_R = by_patients_R
    if by_patients_R.any() or sorted(each[0]) != sorted(
        each[1]
    ):  # else one system under two names, whatever its seeds' order
        difference_R = by_patients_R + _other_seeds(each, draws, seed)
    low, high, p = NAN, NAN, NAN
    if difference == difference:
        low, high = percentiles(difference_R, patients, level)
        p = _p_value(difference_R, patients)
    return Paired(
        metric.name, mean_a, mean_b, float(difference), low, high, level, p, draws, seed, int(np.isnan(difference_R).sum()),
        len(known), patients, bool(high - low <= ROUNDING), (len(a), len(b)), _deviation(by_patients_R),
    )  # fmt: skip


def _other_seeds(each: Sequence[Sequence[float]], draws: int, seed: int) -> np.ndarray:
    """[R] how far the difference of two systems' means may lie from that of all their seeds."""
    rng, moved_R = np.random.default_rng([seed, 1]), np.zeros(draws)
    # In an order of the values: a against b is b against a, turned round.
    for sign, values in sorted(zip((1, -1), each, strict=True), key=lambda one: sorted(one[1])):
        t_R = rng.standard_t(max(len(values) - 1, 1), draws)
        moved_R += sign * t_R * (_spread(values) or 0.0) / np.sqrt(len(values))
    return moved_R


def _deviation(value_R: np.ndarray) -> float:
    defined_R = value_R[~np.isnan(value_R)]
    return float(defined_R.std(ddof=1)) if len(defined_R) > 1 else NAN


def entry(
    predictions: Sequence[Predictions], metric: Metric | str, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Any]:
    """What a result file holds of a metric: plain data, None for what has no value.

    Raises:
        UserError: the seeds predict different cases, or there is no such metric.
    """
    i = bootstrap(predictions, metric, draws, seed, level)
    metric = _metric(metric, predictions[0])
    return {
        "convention": metric.convention,
        "higher_is_better": metric.higher_is_better,
        "ideal": metric.ideal,
        "value": _plain(i.value),
        "per_seed": [_plain(v) for v in i.per_seed],
        "spread": _plain(i.spread),
        "interval": [_plain(i.low), _plain(i.high)] if metric.resampled else None,
        "interval_by": i.by,
        "constant": list(i.constant),
        "level": i.level,
        "draws": i.draws,
        "undefined_draws": i.undefined,
        "bootstrap_seed": i.seed,
        "n": i.n,
        "patients": i.patients,
        "k": list(i.right) if i.right is not None else None,
    }


def _exact(difference: np.ndarray | float) -> np.ndarray:
    """Differences with rounding errors taken for the zeros they are: all of one sign, they would pass for significant."""
    return np.where(np.abs(difference) < ROUNDING, 0.0, difference)[()]


def _plain(x: float | None) -> float | None:
    return None if x is None or x != x else float(x)


def _spread(each: Sequence[float]) -> float | None:
    if len(each) < 2:
        return None
    return (
        0.0 if min(each) == max(each) else float(np.std(each, ddof=1))
    )  # equal seeds: exactly none, not a rounding error


def _metric(metric: Metric | str, p: Predictions) -> Metric:
    return metric_of(metric, p.kind) if isinstance(metric, str) else metric


# ---------------------------------------------------------------------------------------------------------------- same cases


def _aligned(predictions: Sequence[Predictions]) -> list[Predictions]:
    """All predictions in the order of their keys, after the check that they speak of the same cases."""
    assert predictions, "at least one seed"
    first = predictions[0]
    problems = [f"case {k} is predicted twice; evaluate every case once" for p in predictions for k in _twice(p)]
    for p in predictions[1:] if not problems else ():
        problems += _differences(first, p)
    if problems:
        raise UserError(sorted(set(problems)))
    return [p.take(np.argsort(p.keys_N, kind="stable")) for p in predictions]


def _twice(p: Predictions) -> list[str]:
    keys, count = np.unique(p.keys_N, return_counts=True)
    return keys[count > 1][:5].tolist()


def _differences(p: Predictions, q: Predictions) -> list[str]:
    if p.kind != q.kind or p.classes != q.classes:
        return [
            f"predictions of kind {p.kind} {p.classes} and {q.kind} {q.classes} cannot be compared; evaluate the same task"
        ]
    remedy = "evaluate both on the same test split"
    problems = []
    for one, other, name in ((p, q, "second"), (q, p, "first")):
        if len(missing := np.setdiff1d(one.keys_N, other.keys_N)):
            shown = ", ".join(missing[:5].tolist()) + (", ..." if len(missing) > 5 else "")
            problems.append(f"{len(missing)} test cases are missing from the {name} predictions ({shown}); {remedy}")
    if problems:
        return problems
    p, q = (x.take(np.argsort(x.keys_N, kind="stable")) for x in (p, q))
    same_scale = (
        np.array_equal(p.scale_K, q.scale_K)
        if p.scale_K is not None and q.scale_K is not None
        else p.scale_K is q.scale_K
    )
    if not same_scale:
        problems.append(
            f"the targets are scaled by {p.scale_K} and by {q.scale_K}; use the same training split's deviations"
        )
    if p.horizons_H is not None and q.horizons_H is not None and not np.array_equal(p.horizons_H, q.horizons_H):
        problems.append(
            f"the horizons differ, {_few(p.horizons_H)} and {_few(q.horizons_H)}; evaluate both on one data set with one training split"
        )
    if (other_N := p.patients_N != q.patients_N).any():
        problems.append(
            f"case {p.keys_N[other_N][0]} belongs to patient {p.patients_N[other_N][0]} and to {q.patients_N[other_N][0]}"
        )
    if p.target.shape != q.target.shape or not np.array_equal(p.target, q.target, equal_nan=True):
        problems.append(f"the true targets differ{_where(p, q)}; {remedy}, with the same labels")
    return problems


def _few(horizons_H: np.ndarray) -> str:
    return ", ".join(f"{h:g}" for h in horizons_H[:3]) + ", ..." * (len(horizons_H) > 3)


def _where(p: Predictions, q: Predictions) -> str:
    if p.target.shape != q.target.shape:
        return f" in shape, {p.target.shape} and {q.target.shape}"
    differs_NK = ~((p.targets == q.targets) | (np.isnan(p.targets) & np.isnan(q.targets)))
    return f" for {differs_NK.any(1).sum()} cases (first {p.keys_N[differs_NK.any(1)][0]})"


# ------------------------------------------------------------------------------------------------------------------ resamples


def patient_draws(patients: int, cases: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks [r, P] of how often each patient is drawn."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(cases, 1))
    for start in range(0, draws, rows):
        r = min(rows, draws - start)
        pick_rP = rng.integers(0, patients, (r, patients)) + np.arange(r)[:, None] * patients
        yield np.bincount(pick_rP.ravel(), minlength=r * patients).reshape(r, patients)


def _resampled(
    systems: Sequence[Sequence[Predictions]], each: Sequence[Sequence[float]], metric: Metric, draws: int, seed: int
) -> list[np.ndarray]:
    """[R] for each system: the mean over its seeds of the metric, in the same resamples. `each` is its value on the whole set."""
    known = [[p.known() for p in s] for s in systems]
    N = len(known[0][0])
    if N == 0:
        return [np.full(draws, np.nan) for _ in systems]
    names_P, of_N = np.unique(known[0][0].patients_N, return_inverse=True)
    # Prepared once a seed: what is sorted or counted does not depend on the draw.
    forms = [[metric.weighted(p) if metric.weighted else _one_by_one(p, metric, of_N) for p in s] for s in known]
    for fs, values in zip(forms, each, strict=True):
        whole = [float(form(np.ones((1, N)))[0]) for form in fs]
        assert np.allclose(whole, values, rtol=1e-6, atol=1e-6, equal_nan=True), (metric.name, whole, values)
    parts: list[list[np.ndarray]] = [[] for _ in systems]
    for count_RP in patient_draws(len(names_P), N, draws, seed):
        W_RN = count_RP[:, of_N].astype(np.float64)
        for part, fs in zip(parts, forms, strict=True):
            part.append(np.mean([form(W_RN) for form in fs], axis=0))
    return [np.concatenate(part) for part in parts]


def _one_by_one(p: Predictions, metric: Metric, of_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Resamples built and measured: for a metric without a weighted form. A patient drawn twice is two patients."""

    def one(w_N: np.ndarray) -> float:
        times_N = w_N.astype(np.int64)
        index = np.repeat(np.arange(len(p)), times_N)
        copy = np.arange(len(index)) - np.repeat(np.cumsum(times_N) - times_N, times_N)
        return metric.compute(p.take(index, np.char.add(np.char.add(of_N[index].astype(str), "/"), copy.astype(str))))

    return lambda W_RN: np.asarray([one(w_N) for w_N in W_RN])


# ----------------------------------------------------------------------------------------------------------------- percentiles


def percentiles(value_R: np.ndarray, patients: int, level: float) -> tuple[float, float]:
    """The interval at tails widened for few patients; NaN for fewer than two."""
    from scipy.stats import norm, t

    defined_R = value_R[~np.isnan(value_R)]
    if patients < 2 or not len(defined_R):
        return NAN, NAN
    stretch = np.sqrt(patients / (patients - 1))
    tail = norm.cdf(stretch * t.ppf((1 - level) / 2, patients - 1))
    low, high = np.quantile(defined_R, [tail, 1 - tail])
    return float(low), float(high)


def _p_value(value_R: np.ndarray, patients: int) -> float:
    """Twice the smaller share of resamples on one side of zero (zero itself on both), through the same widening."""
    from scipy.stats import norm, t

    defined_R = value_R[~np.isnan(value_R)]
    if patients < 2 or not len(defined_R):
        return NAN
    sides = [(1 + (defined_R <= 0).sum()) / (1 + len(defined_R)), (1 + (defined_R >= 0).sum()) / (1 + len(defined_R))]
    tail = min(0.5, *sides)
    return float(min(1.0, 2 * t.cdf(norm.ppf(tail) / np.sqrt(patients / (patients - 1)), patients - 1)))

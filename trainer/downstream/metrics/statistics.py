"""How sure a number is: intervals and paired tests over test patients.

A patient's cases are not independent, so patients are drawn with replacement, each with all of its cases (the cluster bootstrap).
One draw is applied to all seeds, and in a paired test to both systems; the quantity is the mean over seeds. Resamples say how large the
standard error is; the interval is Student's t on a scale without ends (tails.py). In the interval of one system the seeds are taken as
they are: their spread is another number.

A paired test says which system is better, not which trainings of it were: other seeds would have given other numbers. Where a system has
several, the standard error of their mean is joined to that of the patients, with its own S - 1 degrees of freedom (Satterthwaite). Three
seeds of which one is far off are then no evidence. Where one system has one seed, its trainings are taken to vary as the other's do; of
one seed each nothing is known, and nothing is added: `seeds` of the test says so.
The patients' standard error of areas under ROC curves is that of their placements (delong.py), of other metrics that of resamples.

Where no resample differs from any other (every patient right, or one answer for all), resampling has nothing to say: an exact
bound stands in its place where the metric has one (exact.py), else the interval is marked as degenerate.

Shape letters: S seeds, R resamples, N cases, P patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from trainer.downstream.metrics import delong, false_claim
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.same_cases import aligned, alike
from trainer.downstream.metrics.system import System, system
from trainer.downstream.metrics.table import Metric, metric_of
from trainer.downstream.metrics.tails import NAN, error_of, interval, joined, p_value
from trainer.tracking.intervals import BOOTSTRAP, DEGENERATE, NONE

ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A metric over seeds and its bootstrap interval.

    value         mean over seeds
    per_seed      one value a seed
    spread        standard deviation over seeds (ddof 1); None for one seed
    low, high     the interval of `value` over resampled patients; NaN for fewer than two patients, or without a value
    by            what gave it: "bootstrap-se", an exact bound's name, "degenerate" (no resample differs, no bound is known), "none"
    constant      for each seed, whether its answer is the same for all cases as far as the metric looks (constant.py)
    undefined     resamples in which the metric has no value (one class only, say); they are left out of the interval; 0 where none is made
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
    by: str = BOOTSTRAP
    constant: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Paired:
    """System a against system b on the same test cases.

    difference    mean over seeds of a less the one of b
    low, high     its interval over resampled patients and other seeds; `degenerate` where no resample differs
    p             two-sided; below 1 - level exactly where the interval leaves out zero, but for ties; NaN without a value
    seeds         of a and of b; of one seed each, what others would have given is in neither interval nor p
    error         standard error of the difference over patients, the seeds as they are
    whole_error   the same with what other seeds would have given: that of interval and p
    by            what gave the error: "bootstrap-se", or of areas "DeLong-Obuchowski"
    false_claim   probability that the system with the better number is not the better one (false_claim.py)
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
    by: str = BOOTSTRAP
    false_claim: float = NAN
    whole_error: float = NAN


def bootstrap(
    predictions: Sequence[Predictions] | System,
    metric: Metric | str,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The metric of one system, with predictions of the same test cases by each of its seeds.

    Raises:
        UserError: the seeds predict different cases, or there is no such metric.
    """
    of = system(predictions)
    seeds, known, patients = of.seeds, of.known[0], of.patients
    metric = metric_for(metric, seeds[0])
    each = of.values(metric)
    value, resampled_R = fmean(each), of.resamples(metric, draws, seed) if metric.resampled else np.empty(0)
    found = interval(value, error_of(resampled_R, patients), patients - 1, level, metric.scale)
    low, high, by = _bounded(metric, of.known, each, found, level)
    return Interval(
        metric.name, value, tuple(each), _spread(each), low, high, level, draws, seed, int(np.isnan(resampled_R).sum()),
        len(known), patients, tuple(int(metric.right(p) or 0) for p in of.known) if metric.count else None,
        by, of.constant(metric.decides),
    )  # fmt: skip


def _bounded(
    metric: Metric, known: Sequence[Predictions], each: Sequence[float], interval: tuple[float, float], level: float
) -> tuple[float, float, str]:
    """The interval, or an exact bound in the place of one without width; and what gave it."""
    low, high = interval
    if not metric.resampled:
        return NAN, NAN, NONE
    if low != low:
        return low, high, NONE
    if high - low > ROUNDING:
        return low, high, BOOTSTRAP
    end = next((e for e in (0.0, 1.0) if all(abs(v - e) <= ROUNDING for v in each)), None)
    if metric.slack is None or end is None:
        return low, high, DEGENERATE
    by, slack = max((metric.slack(p, level) for p in known), key=lambda found: found[1])
    return (end, slack, by) if end == 0 else (1 - slack, end, by)


def paired(
    a: Sequence[Predictions] | System, b: Sequence[Predictions] | System, metric: Metric | str, draws: int = 1000,
    seed: int = 0, level: float = 0.95,
) -> Paired:  # fmt: skip
    """Compares two systems on the same test cases, by the difference of their means over seeds; the seeds' number may differ.

    Areas under ROC curves by their placements (delong.py), all other metrics by resampling.

    Raises:
        UserError: the cases, their patients or their truth differ, or there is no such metric.
    """
    one, other = system(a), system(b)
    if not alike(one.seeds[0], other.seeds[0]):
        aligned([*one.seeds, *other.seeds])  # says what differs, if it is more than what one of them lacks
    metric = metric_for(metric, one.seeds[0])
    each = [s.values(metric) for s in (one, other)]
    of = _Of(metric, (one, other), each, one.patients, draws, seed, level)
    mean_a, mean_b = (fmean(e) for e in each)
    difference = float(exact_difference(mean_a - mean_b))
    by_patients = _by_placements(of) or _by_resamples(of)
    error, freedom = _with_seeds(of, by_patients)
    low, high = interval(difference, error, freedom, level)
    p = p_value(difference, error, freedom) if low == low else NAN
    return Paired(
        metric.name, mean_a, mean_b, difference, low, high, level, p, draws, seed, by_patients.undefined,
        len(one.known[0]), of.patients, bool(high - low <= ROUNDING), (len(one.seeds), len(other.seeds)),
        by_patients.error, by_patients.by, _false_claim(of, difference, p),
        error,
    )  # fmt: skip


@dataclass(frozen=True)
class _Of:
    """What a paired test is of: both systems, and the values of their seeds."""

    metric: Metric
    systems: tuple[System, System]
    each: list[list[float]]
    patients: int
    draws: int
    seed: int
    level: float

    @property
    def alike(self) -> bool:
        """One system under two names, whatever its seeds' order. Not two whose numbers agree, as those of a coarse metric may."""
        one, other = (sorted(_said(p) for p in s.seeds) for s in self.systems)
        return one == other


def _said(p: Predictions) -> tuple[bytes, ...]:
    """All that a metric may look at beside the truth, cases in the order of their keys."""
    return tuple(a.tobytes() for a in (p.score, p.soft_N3, p.survival_NH) if a is not None)


@dataclass(frozen=True)
class _OverPatients:
    """The standard error of a difference over patients, with its degrees of freedom."""

    error: float
    freedom: float
    undefined: int
    by: str


def _with_seeds(of: _Of, found: _OverPatients) -> tuple[float, float]:
    """(error, degrees of freedom), with what other seeds of each system would have given."""
    if found.error == 0 and of.alike:
        return 0.0, found.freedom
    a, b = ((_spread(values), len(values)) for values in of.each)
    parts = [(sd / math.sqrt(n), n - 1.0) for sd, n in (a, b) if sd is not None]
    if len(parts) == 1:
        # One system has one seed: its trainings are taken to vary as the other's do, by the same estimate, so one part of the sum.
        (sd, n) = a if a[0] is not None else b
        parts = [((sd or 0.0) * math.sqrt(1 + 1 / n), n - 1.0)]
    return joined([(found.error, found.freedom), *parts])


def _by_placements(of: _Of) -> _OverPatients | None:
    """Of areas; None for other metrics, and where placements say nothing: one patient on a side."""
    if of.metric.areas is None:
        return None
    a, b = of.systems
    found = delong.between(of.metric.areas(a.known[0]), a.of_N, a.placements(of.metric), b.placements(of.metric))
    if found is None:
        return None
    # Rounding errors of one system under two names would pass for a variance.
    return _OverPatients(found.error if found.error > ROUNDING else 0.0, found.freedom, 0, delong.NAME)


def _by_resamples(of: _Of) -> _OverPatients:
    resampled_a, resampled_b = (s.resamples(of.metric, of.draws, of.seed) for s in of.systems)
    difference_R = exact_difference(resampled_a - resampled_b)
    error = error_of(difference_R, of.patients)
    return _OverPatients(error, of.patients - 1, int(np.isnan(difference_R).sum()), BOOTSTRAP)


def _false_claim(of: _Of, difference: float, p: float) -> float:
    """By the published forms where each patient has one number, of one seed a system; else half of p.

    NaN of a metric that is best at a value between its ends (a calibration slope): the larger one is not the better one.
    """
    if of.metric.ideal is not None:
        return float("nan")
    if p != p or difference == 0:
        return p / 2
    if of.metric.parts is not None and all(len(e) == 1 for e in of.each):
        numbers = [of.metric.parts(s.known[0]) for s in of.systems]
        if all(len(n) == of.patients for n in numbers):
            claimed = numbers if (difference > 0) == of.metric.higher_is_better else numbers[::-1]
            found = false_claim.of_numbers(*claimed)
            return found if found == found else p / 2
    return p / 2


def entry(
    predictions: Sequence[Predictions] | System,
    metric: Metric | str,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """What a result file holds of a metric: plain data, None for what has no value.

    Raises:
        UserError: the seeds predict different cases, or there is no such metric.
    """
    of = system(predictions)
    i = bootstrap(of, metric, draws, seed, level)
    metric = metric_for(metric, of.seeds[0])
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


def exact_difference(difference: np.ndarray | float) -> np.ndarray:
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


def metric_for(metric: Metric | str, p: Predictions) -> Metric:
    return metric_of(metric, p.kind) if isinstance(metric, str) else metric

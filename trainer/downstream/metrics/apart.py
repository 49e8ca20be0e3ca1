"""What a metric loses from one set of patients to another: both sets are resampled, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.resampling import resampled
from trainer.downstream.metrics.same_cases import aligned
from trainer.downstream.metrics.statistics import ROUNDING, Paired, exact_difference, metric_for
from trainer.downstream.metrics.table import Metric
from trainer.downstream.metrics.tails import NAN, error_of, interval, joined, p_value


def apart(
    a: Sequence[Predictions], b: Sequence[Predictions], metric: Metric | str, draws: int = 1000, seed: int = 0,
    level: float = 0.95,
) -> Paired:  # fmt: skip
    """The metric on cases `b` less the one on cases `a`, of other patients: each set is resampled by itself.

    `patients` are those of the smaller set; the standard errors of both are joined, each with its own degrees of freedom.

    Raises:
        UserError: the seeds of a set predict different cases, or there is no such metric.
    """
    sets = [aligned(a), aligned(b)]
    metric = metric_for(metric, sets[0][0])
    each = [[metric.compute(p) for p in s] for s in sets]
    mean_a, mean_b = (fmean(e) for e in each)
    known = [s[0].known() for s in sets]
    patients = [len(np.unique(p.patients_N)) for p in known]
    # Seeds of their own: the same draws would tie the two sets to each other.
    drawn = [resampled([s], [e], metric, draws, seed + k)[0] for k, (s, e) in enumerate(zip(sets, each, strict=True))]
    difference = float(exact_difference(mean_b - mean_a))
    parts = [(error_of(value_R, n), n - 1.0) for value_R, n in zip(drawn, patients, strict=True)]
    error, freedom = joined(parts)
    low, high = interval(difference, error, freedom, level)
    p = p_value(difference, error, freedom) if low == low else NAN
    return Paired(
        metric.name, mean_a, mean_b, difference, low, high, level, p, draws, seed, int(np.isnan(drawn[1] - drawn[0]).sum()),
        len(known[1]), min(patients), bool(high - low <= ROUNDING), error=error,
    )  # fmt: skip

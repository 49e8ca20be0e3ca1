"""What a metric loses from one set of patients to another: both sets are resampled, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import ROUNDING, Paired, exact_difference, metric_for
from trainer.downstream.metrics.system import System, system
from trainer.downstream.metrics.table import Metric
from trainer.downstream.metrics.tails import NAN, error_of, interval, joined, p_value


def apart(
    a: Sequence[Predictions] | System, b: Sequence[Predictions] | System, metric: Metric | str, draws: int = 1000,
    seed: int = 0, level: float = 0.95,
) -> Paired:  # fmt: skip
    """The metric on cases `b` less the one on cases `a`, of other patients: each set is resampled by itself.

    `patients` are those of the smaller set; the standard errors of both are joined, each with its own degrees of freedom.

    Raises:
        UserError: the seeds of a set predict different cases, or there is no such metric.
    """
    sets = [system(a), system(b)]
    metric = metric_for(metric, sets[0].seeds[0])
    mean_a, mean_b = (fmean(s.values(metric)) for s in sets)
    patients = [s.patients for s in sets]
    # Seeds of their own: the same draws would tie the two sets to each other.
    drawn = [s.resamples(metric, draws, seed + k) for k, s in enumerate(sets)]
    difference = float(exact_difference(mean_b - mean_a))
    parts = [(error_of(value_R, n), n - 1.0) for value_R, n in zip(drawn, patients, strict=True)]
    error, freedom = joined(parts)
    low, high = interval(difference, error, freedom, level)
    p = p_value(difference, error, freedom) if low == low else NAN
    return Paired(
        metric.name, mean_a, mean_b, difference, low, high, level, p, draws, seed, int(np.isnan(drawn[1] - drawn[0]).sum()),
        len(sets[1].known[0]), min(patients), bool(high - low <= ROUNDING), error=error,
    )  # fmt: skip

"""What a metric loses from one set of patients to another: both sets are resampled, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import (
    NAN,
    ROUNDING,
    Paired,
    _aligned,
    _exact,
    _metric,
    _p_value,
    _resampled,
    percentiles,
)
from trainer.downstream.metrics.table import Metric


def apart(
    a: Sequence[Predictions], b: Sequence[Predictions], metric: Metric | str, draws: int = 1000, seed: int = 0,
    level: float = 0.95,
) -> Paired:  # fmt: skip
    """The metric on cases `b` less the one on cases `a`, of other patients: each set is resampled by itself.

    The tails are widened for the set with fewer patients.

    Raises:
        UserError: the seeds of a set predict different cases, or there is no such metric.
    """
    sets = [_aligned(a), _aligned(b)]
    metric = _metric(metric, sets[0][0])
    each = [[metric.compute(p) for p in s] for s in sets]
    mean_a, mean_b = (fmean(e) for e in each)
    known = [s[0].known() for s in sets]
    patients = min(len(np.unique(p.patients_N)) for p in known)
    # Seeds of their own: the same draws would tie the two sets to each other.
    resampled = [
        _resampled([s], [e], metric, draws, seed + k)[0] for k, (s, e) in enumerate(zip(sets, each, strict=True))
    ]
    difference, difference_R = float(_exact(mean_b - mean_a)), _exact(resampled[1] - resampled[0])
    low, high, p = NAN, NAN, NAN
    if difference == difference:
        low, high = percentiles(difference_R, patients, level)
        p = _p_value(difference_R, patients)
    return Paired(
        metric.name, mean_a, mean_b, difference, low, high, level, p, draws, seed, int(np.isnan(difference_R).sum()),
        len(known[1]), patients, bool(high - low <= ROUNDING),
    )  # fmt: skip

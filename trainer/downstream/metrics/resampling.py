"""Test patients drawn with replacement, each with all of its cases, and a metric of every draw.

Shape letters: S seeds, R resamples, N cases, P patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from trainer.downstream.metrics.metric import Metric
from trainer.downstream.metrics.predictions import Predictions

# Weights held at a time: 3 MB of them stay in the processor's cache and bound the memory for any number of cases.
CHUNK = 400_000


def patient_draws(patients: int, cases: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks [r, P] of how often each patient is drawn."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(cases, 1))
    for start in range(0, draws, rows):
        r = min(rows, draws - start)
        pick_rP = rng.integers(0, patients, (r, patients)) + np.arange(r)[:, None] * patients
        yield np.bincount(pick_rP.ravel(), minlength=r * patients).reshape(r, patients)


def resampled(
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

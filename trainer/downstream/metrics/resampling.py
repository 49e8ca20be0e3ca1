"""Test patients drawn with replacement, each with all of its cases, and a metric of every draw.

Shape letters: S seeds, R resamples, N cases, P patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from trainer.downstream.metrics.metric import Metric
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.weighted import Weighted

# Weights held at a time: 3 MB of them stay in the processor's cache and bound the memory for any number of cases.
CHUNK = 400_000
# Draws at a time at least, as far as 64 MB allow: forms go case by case through rows of so many draws.
ROW, MOST = 256, 8_000_000


def patient_draws(patients: int, cases: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks [r, P] of how often each patient is drawn."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(cases, 1), min(ROW, MOST // max(cases, 1)))
    for start in range(0, draws, rows):
        r = min(rows, draws - start)
        pick_rP = rng.integers(0, patients, (r, patients)) + np.arange(r)[:, None] * patients
        yield np.bincount(pick_rP.ravel(), minlength=r * patients).reshape(r, patients)


def weights(of_N: np.ndarray, draws: int, seed: int) -> Iterable[np.ndarray]:
    """Chunks [r, N] of how often each case is drawn, float64, the draws of a case beside each other in memory.

    Args:
        of_N: which patient each case is of, from 0.
    """
    _keep_freed_memory()
    if len(of_N) * draws <= CHUNK:
        return _kept(of_N.astype(np.int64).tobytes(), draws, seed)
    return _made(of_N, draws, seed)


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """A bound of the C library is raised, for the whole process; only speed depends on it, and no more than 64 MB stay unused.

    glibc takes an array above 128 kB from the system anew and gives it back at once, whose pages cost more than sums over it; one of up to
    32 MB that is freed raises that bound to its size (mallopt(3), M_MMAP_THRESHOLD). Seven metrics of 1,000 cases, 1,000 resamples: 0.16 s
    without, 0.10 s with it, at 1 % more memory.
    """
    np.empty(3_900_000)  # 31 MB, never touched, and freed at once


@lru_cache(maxsize=4)
def _kept(of_N: bytes, draws: int, seed: int) -> list[np.ndarray]:
    """The same for every metric of every system of the same patients: made once."""
    made = list(_made(np.frombuffer(of_N, np.int64), draws, seed))
    for W_RN in made:
        W_RN.flags.writeable = False
    return made


def _made(of_N: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    for count_RP in patient_draws(int(of_N.max()) + 1, len(of_N), draws, seed):
        yield np.ascontiguousarray(count_RP.T).astype(np.float64)[of_N].T


def resampled(forms: Sequence[Weighted], of_N: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """[R] the mean over seeds, each by its form, of a metric in the same resamples of the patients `of_N`."""
    return np.concatenate([np.mean([form(W_RN) for form in forms], axis=0) for W_RN in weights(of_N, draws, seed)])


def one_by_one(p: Predictions, metric: Metric, of_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Resamples built and measured: for a metric without a weighted form. A patient drawn twice is two patients."""

    def one(w_N: np.ndarray) -> float:
        times_N = w_N.astype(np.int64)
        index = np.repeat(np.arange(len(p)), times_N)
        copy = np.arange(len(index)) - np.repeat(np.cumsum(times_N) - times_N, times_N)
        return metric.compute(p.take(index, np.char.add(np.char.add(of_N[index].astype(str), "/"), copy.astype(str))))

    return lambda W_RN: np.asarray([one(w_N) for w_N in W_RN])

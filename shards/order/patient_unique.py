"""At most one sample of a patient in a global batch.

Let n_p be the samples of patient p. B batches of G distinct patients exist exactly when sum_p min(n_p, B) >= B G, and a
wrap-around deal reaches that bound: lay the patients' samples out one after another, each patient at most B of them, and
give position t to batch t mod B. A run of at most B consecutive positions meets every batch at most once (the argument of
McNaughton's preemptive schedule, Management Science 6, 1959). The sum divided by B falls with B, so bisection finds the
most batches.
"""

from __future__ import annotations

import numpy as np

from shards.errors import bad
from shards.order.streams import Purpose, stream
from shards.read.subset import Subset


class PatientUnique:
    """Deals patients over batches; patients, their samples, and the batches come in a new random order every epoch."""

    def __init__(self, subset: Subset, seed: int, global_batch: int):
        self.seed, self.global_batch = seed, global_batch
        names, self._patient = np.unique(subset.patients, return_inverse=True)
        counts = np.bincount(self._patient)
        if len(names) < global_batch:
            raise bad(
                f"order patient_unique: a global batch of {global_batch} needs as many patients, there are {len(names)}",
                subset.source,
                f"set global_batch to at most {len(names)}, or use order shuffle",
            )
        self.steps = most_batches(counts, global_batch)
        surplus = int(np.maximum(counts - self.steps, 0).sum())
        self.notes: list[str] = []
        if surplus:
            many = int((counts > self.steps).sum())
            self.notes.append(f"{surplus} of them because {many} patients have more samples than the epoch has batches")
        self._dealt: tuple[int, np.ndarray] | None = None

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        if self._dealt is None or self._dealt[0] != epoch:
            self._dealt = (epoch, self._deal(epoch))
        return self._dealt[1][step], np.zeros(self.global_batch, np.int64)

    def _deal(self, epoch: int) -> np.ndarray:
        """Positions in the subset [B, G]."""
        rng, B, G = stream(self.seed, epoch, Purpose.ORDER), self.steps, self.global_batch
        # Random order of patients, random order of samples within each: sort by (random rank of patient, random number).
        shuffled = rng.permutation(len(self._patient))
        rank = rng.permutation(int(self._patient.max()) + 1)[self._patient[shuffled]]
        runs = shuffled[np.argsort(rank, kind="stable")]
        nth = _position_in_run(self._patient[runs])
        runs = runs[nth < B]
        # Fewer than G are too many now (else one more batch would fit); which ones is a matter of chance.
        kept = np.sort(rng.permutation(len(runs))[: B * G])
        batches = runs[kept].reshape(G, B).T
        return rng.permuted(batches[rng.permutation(B)], axis=1)


def most_batches(counts: np.ndarray, global_batch: int) -> int:
    """The largest B with sum_p min(n_p, B) >= B G; 0 if none."""
    lo, hi = 0, int(counts.sum()) // global_batch
    while lo < hi:
        mid = (lo + hi + 1) // 2
        if np.minimum(counts, mid).sum() >= mid * global_batch:
            lo = mid
        else:
            hi = mid - 1
    return lo


def _position_in_run(values: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within every run of equal values."""
    first = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
    return np.arange(len(values)) - np.repeat(first, np.diff(np.append(first, len(values))))

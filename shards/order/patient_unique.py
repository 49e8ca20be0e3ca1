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
        counts = np.bincount(subset.patients)
        # Patients of the subset alone, numbered from 0; counted, as sorting them would grow faster than the samples.
        self._patient = _small(np.cumsum(counts > 0) - 1)[subset.patients]
        counts = counts[counts > 0]
        if len(counts) < global_batch:
            raise bad(
                f"order patient_unique: a global batch of {global_batch} needs as many patients, there are {len(counts)}",
                subset.source,
                f"set global_batch to at most {len(counts)}, or use order shuffle",
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
        shuffled = _permutation(rng, len(self._patient))
        rank = _permutation(rng, int(self._patient.max()) + 1)[self._patient[shuffled]]
        runs = shuffled[_sorted_by(rank)]
        del shuffled, rank
        nth = _position_in_run(self._patient[runs])
        runs = runs[nth < B]
        # Fewer than G are too many now (else one more batch would fit); which ones is a matter of chance.
        kept = np.zeros(len(runs), bool)
        kept[_permutation(rng, len(runs))[: B * G]] = True
        # A row of one place in all batches stays in the cache while it is put in order; a batch of the transposed would not.
        batches = np.ascontiguousarray(runs[kept].reshape(G, B)[:, rng.permutation(B)].T)
        return rng.permuted(batches, axis=1)


def _small(numbers: np.ndarray) -> np.ndarray:
    """In half the memory where they fit."""
    return numbers.astype(np.int32) if len(numbers) < 2**31 else numbers


def _permutation(rng: np.random.Generator, n: int) -> np.ndarray:
    """`rng.permutation(n)`, in half its memory."""
    numbers = _small(np.arange(n))
    rng.shuffle(numbers)
    return numbers


def _sorted_by(rank: np.ndarray) -> np.ndarray:
    """The stable order of numbers below 2^32, 16 bits at a time: NumPy sorts those by counting, others by comparing.

    The bits above 16 come first: each of their values is then a part that is sorted in the cache. Beginning with the lower bits, every
    look at a number would be one in memory.
    """
    if rank.max(initial=0) <= 0xFFFF:
        return np.argsort(rank.astype(np.uint16), kind="stable")
    high = (rank >> 16).astype(np.uint8 if rank.max() < 1 << 24 else np.uint16)
    order = _small(np.argsort(high, kind="stable"))
    low, stops = (rank[order] & 0xFFFF).astype(np.uint16), np.cumsum(np.bincount(high))
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        order[start:stop] = order[start:stop][np.argsort(low[start:stop], kind="stable")]
    return order


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

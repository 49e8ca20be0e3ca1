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
from shards.order.dealt import Deal, Patients
from shards.order.large import (
    ORDER_VERSION,
    WHOLE,
    batches_of_patients,
    by_places,
    position_in_run,
    shuffled,
    small,
    whole_of,
)
from shards.order.streams import Purpose, Streams, stream
from shards.read.subset import Subset


class PatientUnique:
    """Deals patients over batches; patients, their samples, and the batches come in a new random order every epoch."""

    def __init__(self, subset: Subset, seed: int, global_batch: int, order_version: int = ORDER_VERSION):
        self.seed, self.global_batch, self._whole = seed, global_batch, whole_of(order_version)
        self.large, self._patient = len(subset) > WHOLE, subset.patients
        self._patients = Patients(subset.patients) if by_places(order_version, len(subset)) else None
        size, alike = self._sizes()
        if alike.sum() < global_batch:
            raise bad(
                f"order patient_unique: a global batch of {global_batch} needs as many patients, there are {alike.sum()}",
                subset.source,
                f"set global_batch to at most {alike.sum()}, or use order shuffle",
            )
        self.steps = most_batches(size, alike, global_batch)
        surplus = int(np.maximum(size - self.steps, 0) @ alike)
        self._spare = len(subset) - surplus - self.steps * global_batch
        self.notes: list[str] = []
        if surplus:
            many = int(alike[size > self.steps].sum())
            self.notes.append(f"{surplus} of them because {many} patients have more samples than the epoch has batches")
        self._mixes = Streams(seed, Purpose.MIX)
        self._dealt: tuple[int, np.ndarray, np.ndarray | None] | None = None
        self._deal_of: tuple[int, Deal] | None = None

    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of samples that patients have, and how many patients have each: few numbers for any number of patients."""
        if self._patients is not None:
            return self._patients.size, self._patients.alike
        counts = np.bincount(self._patient)
        if len(self._patient) <= self._whole:
            # Patients of the subset alone, numbered from 0; counted, as sorting them would grow faster than the samples.
            self._patient = small(np.cumsum(counts > 0) - 1)[self._patient]
        return sizes_of_patients(counts)

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        repeat = np.zeros(self.global_batch, np.int64)
        if self._patients is None:
            batches, row = self._epoch(epoch)
            if row is None:
                return batches[step], repeat
            at = batches[row[step]]
        else:
            at = self._deal_by_places(epoch, self._patients).batch(step)
        return at[self._mixes.at(epoch, step).permutation(len(at))], repeat

    def _deal_by_places(self, epoch: int, patients: Patients) -> Deal:
        known = self._deal_of
        if known is None or known[0] != epoch:
            rng = stream(self.seed, epoch, Purpose.ORDER)
            known = self._deal_of = (epoch, Deal(rng, patients, self.steps, self.global_batch, self._spare))
        return known[1]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """What is dealt as a whole: positions in the subset [B, G], and the row [B] of each step, None where that is the step."""
        known = self._dealt
        if known is None or known[0] != epoch:
            known = self._dealt = None  # two epochs would be in memory at once
            whole = len(self._patient) <= self._whole
            known = self._dealt = (epoch, self._deal(epoch), None) if whole else (epoch, *self._deal_large(epoch))
        return known[1:]

    def _deal_large(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the subset [B, G], and the row [B] of each step; a row is put in order when its step comes."""
        rng = stream(self.seed, epoch, Purpose.ORDER)
        batches = batches_of_patients(rng, self._patient, self._spare, self.steps, self.global_batch, self._whole)
        return batches, shuffled(rng, np.arange(self.steps), self._whole)

    def _deal(self, epoch: int) -> np.ndarray:
        """Positions in the subset [B, G]."""
        rng, B, G = stream(self.seed, epoch, Purpose.ORDER), self.steps, self.global_batch
        # Random order of patients, random order of samples within each: sort by (random rank of patient, random number).
        shuffled = _permutation(rng, len(self._patient))
        rank = _permutation(rng, int(self._patient.max()) + 1)[self._patient[shuffled]]
        runs = shuffled[_sorted_by(rank)]
        del shuffled, rank
        nth = position_in_run(self._patient[runs])
        runs = runs[nth < B]
        # Fewer than G are too many now (else one more batch would fit); which ones is a matter of chance.
        kept = np.zeros(len(runs), bool)
        kept[_permutation(rng, len(runs))[: B * G]] = True
        # A row of one place in all batches stays in the cache while it is put in order; a batch of the transposed would not.
        batches = np.ascontiguousarray(runs[kept].reshape(G, B)[:, rng.permutation(B)].T)
        return rng.permuted(batches, axis=1)


def _permutation(rng: np.random.Generator, n: int) -> np.ndarray:
    """`rng.permutation(n)`, in half its memory."""
    numbers = small(np.arange(n))
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
    order = small(np.argsort(high, kind="stable"))
    low, stops = (rank[order] & 0xFFFF).astype(np.uint16), np.cumsum(np.bincount(high))
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        order[start:stop] = order[start:stop][np.argsort(low[start:stop], kind="stable")]
    return order


def sizes_of_patients(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of samples that a patient has, ascending; how many patients have each), from the samples of each patient."""
    patients = np.bincount(counts)
    size = np.flatnonzero(patients)
    size = size[size > 0]
    return size, patients[size]


def most_batches(size: np.ndarray, alike: np.ndarray, global_batch: int) -> int:
    """The largest B with sum_p min(n_p, B) >= B G; 0 if none; `alike` patients have `size` samples."""
    lo, hi = 0, int(size @ alike) // global_batch
    while lo < hi:
        mid = (lo + hi + 1) // 2
        if np.minimum(size, mid) @ alike >= mid * global_batch:
            lo = mid
        else:
            hi = mid - 1
    return lo

"""Who takes the place of a sample that cannot be read: a rule, so that every run and every world size replaces alike.

The candidates of a slot are disjoint from those of every other slot of the global batch and from the batch itself. So ranks
need not talk, and no sample (or patient, under patient_unique) comes twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shards.order.mix import MixPlan
from shards.order.plan import Plan
from shards.order.streams import Purpose, stream
from shards.read.subset import Subset


def stand_ins(plan: Plan | MixPlan, epoch: int, step: int, slot: int) -> Iterator[int]:
    """Samples to try, in order, for a slot (0..G-1) of the global batch.

    class_balanced: of the same class. patient_unique: of the same patient, then of patients outside the batch. A mix: of the
    same data set. Empty when the batch leaves nothing to choose from.
    """
    draws = plan.batch(epoch, step)
    rng = stream(plan.seed, epoch, Purpose.STAND_IN, step)
    if isinstance(plan, MixPlan):
        part = np.searchsorted(plan.offsets, draws.index, "right") - 1
        k = int(part[slot])
        pool = plan.subsets[k].indices + plan.offsets[k]
        return _deal(np.setdiff1d(pool, draws.index), part, slot, rng)
    subset, at = plan.subset, np.searchsorted(plan.subset.indices, draws.index)
    if plan.strategy == "patient_unique":
        own = stream(plan.seed, epoch, Purpose.STAND_IN, step, slot + 1)
        return _patients(subset, at, slot, rng, own)
    group = getattr(plan.order, "group", np.zeros(len(subset), np.int64))
    pool = subset.indices[group == group[at[slot]]]
    return _deal(np.setdiff1d(pool, draws.index), group[at], slot, rng)


def _deal(pool: np.ndarray, group: np.ndarray, slot: int, rng: np.random.Generator) -> Iterator[int]:
    """Every m-th of the shuffled pool, m being the slots that draw from this pool and `slot` the k-th of them."""
    rivals = np.flatnonzero(group == group[slot])
    k = int(np.searchsorted(rivals, slot))
    return iter(rng.permutation(pool)[k :: len(rivals)].tolist())


def _patients(
    subset: Subset, at: np.ndarray, slot: int, rng: np.random.Generator, own: np.random.Generator
) -> Iterator[int]:
    """The same patient's other samples, then one sample each of every G-th patient outside the batch.

    `rng` is alike for all slots, so that they share out the patients; `own` is the slot's.
    """
    here = subset.patients[at]
    same = np.setdiff1d(np.flatnonzero(subset.patients == here[slot]), at[slot])
    yield from subset.indices[own.permutation(same)].tolist()
    outside = rng.permutation(np.setdiff1d(subset.patients, here))
    for patient in outside[slot :: len(at)]:
        samples = np.flatnonzero(subset.patients == patient)
        yield int(subset.indices[own.choice(samples)])

"""Who takes which part of a global batch, and how an evaluation is dealt over ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shards.errors import bad


def rank_slice(global_batch: int, rank: int, world: int) -> slice:
    """Rank r of W takes [r G / W, (r + 1) G / W) of every global batch.

    Raises:
        DataError: W does not divide G; the nearest G that it divides is named.
    """
    assert 0 <= rank < world, f"rank {rank} of {world}"
    if global_batch % world:
        fix = f"set global_batch to {_nearest(global_batch, world)}, or use a number of ranks that divides it"
        raise bad(f"{world} ranks do not divide a global batch of {global_batch}", "global_batch", fix)
    share = global_batch // world
    return slice(rank * share, (rank + 1) * share)


def micro_slices(share: int, micro_batch: int, name: str = "micro_batch") -> list[slice]:
    """A rank's share cut into contiguous micro batches, in order; `name` is what the user calls their size.

    Raises:
        DataError: the micro batch does not divide the share.
    """
    if micro_batch < 1 or share % micro_batch:
        divisors = [d for d in range(1, share + 1) if share % d == 0]
        near = min(divisors, key=lambda d: abs(d - micro_batch))
        what = f"a {name.replace('_', ' ')} of {micro_batch} does not divide a rank's share of {share} samples"
        raise bad(what, name, f"set {name} to {near}, or change global_batch")
    return [slice(i, i + micro_batch) for i in range(0, share, micro_batch)]


def _nearest(global_batch: int, world: int) -> int:
    return max(round(global_batch / world), 1) * world


@dataclass(frozen=True)
class EvalPlan:
    """int64 [steps, batch] positions, and float32 [steps, batch] weights: 1 for a sample that counts, 0 for padding."""

    position: np.ndarray
    weight: np.ndarray


def eval_plan(n: int, batch: int, rank: int = 0, world: int = 1) -> EvalPlan:
    """A rank's part of an evaluation: every sample exactly once over all ranks, equally many batches on each.

    Padding repeats the last sample with weight 0, so that collectives stay in step.
    """
    assert n > 0, "an evaluation needs samples"
    assert batch > 0, "an evaluation needs a batch size"
    assert 0 <= rank < world, f"rank {rank} of {world}"
    steps = -(-n // (batch * world))
    all_slots = np.arange(steps * world * batch).reshape(steps, world, batch)[:, rank]
    return EvalPlan(np.minimum(all_slots, n - 1), (all_slots < n).astype(np.float32))

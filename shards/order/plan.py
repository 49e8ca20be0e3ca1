"""Which sample comes when: a pure function of (seed, epoch, position), without state, shared memory or workers.

Letters: n samples, S shards, B batches (steps) of an epoch, G samples in a global batch (all ranks, all micro batches).

    shuffle         shards permuted, then samples permuted inside a window of shards: reads stay local, and position 1,000,000
                    of 10,000 shards costs one permutation of shard numbers and one of a window
    patient_unique  at most one sample of a patient in a global batch
    class_balanced  P classes x K samples in a global batch, G = P K; small classes come round again, reshuffled
    sequential      as stored
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from shards.errors import bad
from shards.order.class_balanced import ClassBalanced
from shards.order.large import ORDER_VERSION, WHOLE, by_places, whole_of
from shards.order.patient_unique import PatientUnique
from shards.order.places import Walk
from shards.order.streams import Purpose, check_seed, sample_rng, stream
from shards.read.subset import Subset

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["Draws", "Once", "Plan", "sample_rng"]

WINDOW = 64


@dataclass(frozen=True)
class Draws:
    """A global batch: int64 [G] samples, and int64 [G] telling apart the draws of one sample within an epoch (0 for the first)."""

    index: np.ndarray
    repeat: np.ndarray


class Strategy(Protocol):
    """An order within epochs. `group` [n] says which samples may stand in for which (see shards/order/stand_in.py)."""

    steps: int
    notes: list[str]

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(positions in the subset [G], repeats [G])."""
        ...


class Shuffle:
    """Shards permuted, then samples within windows of shards; also read as an endless stream by a mix."""

    def __init__(
        self, subset: Subset, seed: int, global_batch: int, window: int = WINDOW, order_version: int = ORDER_VERSION
    ):
        self.seed, self.window, self.global_batch = seed, window, global_batch
        self._version = order_version
        whole_of(order_version)  # refuses what is none
        self.n = len(subset)
        self.steps = self.n // global_batch
        self.notes: list[str] = []
        bounds = np.searchsorted(subset.indices, subset.starts)
        filled = np.flatnonzero(np.diff(bounds))
        self._lo, self._hi = bounds[filled], bounds[filled + 1]
        self._plans: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        # Of the shards that there are, as many as a window has; the largest ones.
        most = np.sort(self._hi - self._lo)[-window:].sum()
        self.large = bool(most > WHOLE)
        self._made: dict[tuple[int, int], np.ndarray | Walk] = {}

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        start = step * self.global_batch
        return self.take(epoch, start, start + self.global_batch), np.zeros(self.global_batch, np.int64)

    def take(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Positions start..stop of an epoch's order."""
        _, ends = self._windows(epoch)
        parts, w = [], int(np.searchsorted(ends, start, "right"))
        while start < stop:
            begin = int(ends[w - 1]) if w else 0
            parts.append(self._window(epoch, w)[start - begin : stop - begin])
            start, w = int(ends[w]), w + 1
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _windows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's order of shards, and the position at which each window ends."""
        plan = self._plans.get(epoch)
        if plan is None:
            order = stream(self.seed, epoch, Purpose.ORDER).permutation(len(self._lo))
            sizes = np.add.reduceat((self._hi - self._lo)[order], np.arange(0, len(order), self.window))
            plan = (order, np.cumsum(sizes))
            _remember(self._plans, epoch, plan)
        return plan

    def _window(self, epoch: int, w: int) -> np.ndarray | Walk:
        made = self._made.get((epoch, w))
        if made is None:
            shards = self._windows(epoch)[0][w * self.window : (w + 1) * self.window]
            made = self._in_order(stream(self.seed, epoch, Purpose.WINDOW, w), self._lo[shards], self._hi[shards])
            _remember(self._made, (epoch, w), made)
        return made

    def _in_order(self, rng: np.random.Generator, lo: np.ndarray, hi: np.ndarray) -> np.ndarray | Walk:
        """The samples lo to hi of every shard of a window."""
        end = np.cumsum(hi - lo)
        if not by_places(self._version, n := int(end[-1])):
            return rng.permutation(np.concatenate([np.arange(a, b) for a, b in zip(lo, hi, strict=True)]))

        def sample(at: np.ndarray) -> np.ndarray:
            shard = np.searchsorted(end, at, "right")
            return hi[shard] - end[shard] + at

        return Walk(rng, n, sample)


class Sequential:
    """As stored; the same every epoch."""

    def __init__(self, subset: Subset, seed: int, global_batch: int):
        self.global_batch = global_batch
        self.steps = len(subset) // global_batch
        self.notes: list[str] = []

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.arange(step * self.global_batch, (step + 1) * self.global_batch)
        return at, np.zeros(self.global_batch, np.int64)


def _remember(cache: dict[K, V], key: K, value: V, most: int = 3) -> None:
    """Keeps the newest few; what falls out can be computed again."""
    while len(cache) >= most:
        cache.pop(next(iter(cache)), None)
    cache[key] = value


STRATEGIES: Mapping[str, Callable[..., Strategy]] = {
    "shuffle": Shuffle,
    "patient_unique": PatientUnique,
    "class_balanced": ClassBalanced,
    "sequential": Sequential,
}


class Plan:
    """The global batches of every epoch.

    Args:
        strategy: a name of `STRATEGIES`.
        subset: the samples.
        seed: of the order and of the randomness inside samples.
        global_batch: G.
        label: class_balanced: the label whose classes are balanced.
        classes_per_batch: class_balanced: P; all classes when None.
        window: shuffle: shards in a window.
        order_version: of the order of large sets, as the run began with it (`shards.order.large`).

    Raises:
        DataError: the samples cannot be dealt so; it says why and what would work.
    """

    def __init__(
        self,
        strategy: str,
        subset: Subset,
        seed: int,
        global_batch: int,
        *,
        label: str | None = None,
        classes_per_batch: int | None = None,
        window: int = WINDOW,
        order_version: int = ORDER_VERSION,
    ):
        if strategy not in STRATEGIES:
            raise bad(f"no strategy '{strategy}'", "order", f"use one of {', '.join(STRATEGIES)}")
        if (label is not None or classes_per_batch is not None) and strategy != "class_balanced":
            raise bad(
                f"order '{strategy}' takes no label and no classes per batch",
                "order",
                "use class_balanced, or leave them out",
            )
        check_batch(global_batch, len(subset), subset.source)
        self.strategy, self.subset, self.global_batch = strategy, subset, global_batch
        self.seed, self.order_version = check_seed(seed), order_version
        options: dict[str, object] = {} if strategy == "sequential" else {"order_version": order_version}
        if strategy == "shuffle":
            options["window"] = window
        if strategy == "class_balanced":
            options |= {"label": label, "classes_per_batch": classes_per_batch}
        self.order = STRATEGIES[strategy](subset, self.seed, global_batch, **options)
        assert self.order.steps > 0

    @property
    def versioned(self) -> bool:
        """Whether the version makes a difference: not for small sets, nor for one that is read as it is stored."""
        return getattr(self.order, "large", False)

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps

    @property
    def samples_per_epoch(self) -> int:
        return self.order.steps * self.global_batch

    @property
    def dropped(self) -> int:
        """Samples that an epoch must leave out (others every epoch, where the order is random)."""
        return max(len(self.subset) - self.samples_per_epoch, 0)

    def batch(self, epoch: int, step: int) -> Draws:
        """The global batch at (epoch, step), 0 <= step < steps_per_epoch."""
        if not 0 <= step < self.steps_per_epoch or epoch < 0:
            raise IndexError(f"step {step} of epoch {epoch}: an epoch has {self.steps_per_epoch} steps")
        at, repeat = self.order.batch(epoch, step)
        return Draws(self.subset.indices[at], repeat)

    def describe(self) -> str:
        """One sentence for the log: what an epoch is and what it leaves out."""
        steps, G, n = self.steps_per_epoch, self.global_batch, len(self.subset)
        text = f"{self.subset.source}: {n} samples, order {self.strategy}, {steps} steps of {G} an epoch"
        notes = [f"{self.dropped} samples are left out of each epoch"] if self.dropped else []
        return "; ".join([text, *notes, *self.order.notes])


class Once(Plan):
    """All samples of a subset, as stored: for `Loader.evaluate` alone, which pads, so that a batch may be larger than the subset."""

    def __init__(self, subset: Subset, global_batch: int):
        assert global_batch > 0, "an evaluation needs a batch size"
        self.strategy, self.subset, self.global_batch, self.seed = "sequential", subset, global_batch, 0
        self.order_version = ORDER_VERSION
        self.order = Sequential(subset, 0, global_batch)


def check_batch(global_batch: int, samples: int, source: str) -> None:
    """Raises DataError unless 1 <= G <= n."""
    if global_batch < 1:
        raise bad(f"a global batch of {global_batch}", "global_batch", "give at least 1")
    if global_batch > samples:
        raise bad(
            f"a global batch of {global_batch} from {samples} samples", source, f"set global_batch to at most {samples}"
        )

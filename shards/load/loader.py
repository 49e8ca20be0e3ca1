"""Batches for one rank, prepared ahead by threads; the whole state is {seed, epoch, consumed, order_version} and the fingerprint."""

from __future__ import annotations

import hashlib
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self

import numpy as np

from shards.errors import DataError, Problem
from shards.load.micro_batch import B, BadSample, Micro, S, SamplePipeline
from shards.load.position import state_of
from shards.load.threads import Pool
from shards.order.mix import Mix, MixPlan
from shards.order.plan import Plan
from shards.order.ranks import eval_plan, micro_slices, rank_slice
from shards.order.stand_in import stand_ins
from shards.order.streams import Purpose, Streams
from shards.read.arrays import ArrayPool
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord


@dataclass(frozen=True)
class StepData(Generic[B]):
    """One step of a rank.

    consumed   samples used by the whole run up to and including this step; what `Loader.state` wants
    micro      this rank's micro batches, in order
    keys_hash  of the keys of the planned global batch, in order: equal on all ranks and for any world size
    bad        (key, message) of samples of this rank that were replaced
    index      int64 [G / W]: the samples of this rank, after replacement
    """

    epoch: int
    step: int
    consumed: int
    micro: list[B]
    keys_hash: str
    bad: list[tuple[str, str]] = field(default_factory=list)
    index: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class _Pending(Generic[S, B]):
    epoch: int
    step: int
    micros: list[Micro[S, B]]
    keys_hash: str = ""

    def run(self, pool: Pool) -> None:
        """Hands the work to the threads; without threads the consumer does it when it wants the result."""
        for micro in self.micros:
            for call in micro.calls():
                pool.put(call)

    def run_here(self) -> None:
        for micro in self.micros:
            for call in micro.calls():
                call()


class Loader(Generic[S, B]):
    """Reads, transforms and collates a plan's batches for rank `rank` of `world`.

    Args:
        data: the data set or mix that the plan was made for.
        plan: which samples come when.
        transform: (record, generator) -> sample with `.arrays`; runs in the worker threads.
        collate: samples -> batch; see `micro.Samples` for how to take arrays without a copy.
        micro_batch: samples in a micro batch of this rank; its whole share when None.
        workers: threads; 0 works in the consumer.
        prefetch: steps prepared ahead.
        max_bad_samples: how many different bad samples this rank may replace before the run ends.

    Raises:
        DataError: world or micro batch do not divide.
    """

    def __init__(
        self,
        data: Dataset | Mix,
        plan: Plan | MixPlan,
        transform: Callable[[ShardRecord, np.random.Generator], S],
        collate: Callable[[Sequence[S]], B],
        *,
        rank: int = 0,
        world: int = 1,
        micro_batch: int | None = None,
        workers: int = 2,
        prefetch: int = 2,
        max_bad_samples: int = 0,
    ):
        assert workers >= 0, "workers cannot be negative"
        assert prefetch >= 0, "prefetch cannot be negative"
        self.data, self.plan, self.rank, self.world = data, plan, rank, world
        self.share = rank_slice(plan.global_batch, rank, world)
        self.micro_batch = micro_batch or plan.global_batch // world
        self._cuts = micro_slices(plan.global_batch // world, self.micro_batch)
        self.prefetch, self.max_bad_samples = prefetch, max_bad_samples
        # In work, in the consumer's hands, and one that it has not let go of yet.
        kept = (prefetch + 3) * len(self._cuts)
        self._recipe = SamplePipeline(data, transform, collate, ArrayPool(kept), Streams(plan.seed, Purpose.SAMPLE))
        # Two chunks a thread and micro batch keep threads level without many hand-overs.
        self._chunk = max(1, min(16, -(-self.micro_batch // (2 * max(workers, 1)))))
        self._bad: dict[int, BadSample] = {}
        self._pool = Pool(workers)
        # Ends the threads when the loader is dropped unclosed; they hold no reference to it.
        self._finalizer = weakref.finalize(self, self._pool.stop)

    # -------------------------------------------------------------------------------------------------------- training

    def iterate(self, epoch: int = 0, step: int = 0) -> Iterator[StepData[B]]:
        """Steps from (epoch, step) on, for ever; epochs roll over.

        Raises:
            DataError: more bad samples than allowed, all of them listed, or one that nothing can stand in for.
        """
        for pending in self._ahead(self._planned(epoch, step)):
            micro = [m.result() for m in pending.micros]
            found = [b for m in pending.micros for b in m.bad]
            self._check_bad(found)
            consumed = pending.epoch * self.plan.samples_per_epoch + (pending.step + 1) * self.plan.global_batch
            messages = [(b.key, str(b.error)) for b in found]
            index = np.concatenate([m.index for m in pending.micros])
            yield StepData(pending.epoch, pending.step, consumed, micro, pending.keys_hash, messages, index)

    def evaluate(self, epoch: int = 0) -> Iterator[B]:
        """Batches of all samples of the plan's subset, once each over all ranks; `weight_B` is 0 for padding.

        Every rank gets equally many. Randomness inside samples, if any, is that of `epoch`. A bad sample is an error here:
        a score must not be over fewer samples than it says.
        """
        assert isinstance(self.plan, Plan), "evaluate the parts of a mix one by one"
        for pending in self._ahead(self._eval_planned(epoch, self.plan.subset.indices)):
            yield pending.micros[0].result()

    def _planned(self, epoch: int, step: int) -> Iterator[_Pending[S, B]]:
        while True:
            while step < self.plan.steps_per_epoch:
                yield self._plan_step(epoch, step)
                step += 1
            epoch, step = epoch + 1, 0

    def _plan_step(self, epoch: int, step: int) -> _Pending[S, B]:
        draws = self.plan.batch(epoch, step)
        index, repeat = draws.index[self.share], draws.repeat[self.share]
        keys = self.data.keys_of(draws.index)
        own, micros = keys[self.share], []
        for cut in self._cuts:
            first = self.share.start + cut.start
            replace = _Replace(self.plan, epoch, step, first)
            micros.append(
                Micro(self._recipe, epoch, index[cut], repeat[cut], replace, chunk=self._chunk, keys=own[cut])
            )
        return _Pending(epoch, step, micros, keys_hash(keys))

    def _eval_planned(self, epoch: int, indices: np.ndarray) -> Iterator[_Pending[S, B]]:
        plan = eval_plan(len(indices), self.micro_batch, self.rank, self.world)
        for step, (at, weight) in enumerate(zip(plan.position, plan.weight, strict=True)):
            none = np.zeros(len(at), np.int64)
            yield _Pending(epoch, step, [Micro(self._recipe, epoch, indices[at], none, None, weight, self._chunk)])

    def _ahead(self, planned: Iterator[_Pending[S, B]]) -> Iterator[_Pending[S, B]]:
        """Keeps `prefetch` steps in work beyond the one that is handed out."""
        waiting: deque[_Pending[S, B]] = deque()
        try:
            while True:
                if self._pool.closed:
                    raise RuntimeError("the loader is closed")
                while len(waiting) <= (self.prefetch if self._pool.workers else 0):
                    pending = next(planned, None)
                    if pending is None:
                        break
                    if self._pool.workers:
                        pending.run(self._pool)
                    waiting.append(pending)
                if not waiting:
                    return
                pending = waiting.popleft()
                if not self._pool.workers:
                    pending.run_here()
                yield pending
        finally:
            for pending in waiting:
                for micro in pending.micros:
                    micro.cancel()

    def _check_bad(self, found: Sequence[BadSample]) -> None:
        for sample in found:
            self._bad.setdefault(sample.index, sample)
        if len(self._bad) > self.max_bad_samples:
            head = Problem(
                f"{len(self._bad)} bad samples, data.max_bad_samples allows {self.max_bad_samples}",
                "training data",
                "mend them (`python -m shards lint` lists all), or raise data.max_bad_samples",
            )
            raise DataError([head, *(p for b in self._bad.values() for p in b.error.problems)])

    # ----------------------------------------------------------------------------------------------------------- state

    def state(self, consumed: int) -> dict[str, Any]:
        """What a checkpoint stores: plain data."""
        return state_of(self.data, self.plan, consumed)

    # ----------------------------------------------------------------------------------------------------------- close

    def close(self) -> None:
        """Ends the threads and waits for them; batches handed out stay valid."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Replace:
    """Slot of a micro batch -> its stand-ins."""

    __slots__ = ("_epoch", "_first", "_plan", "_step")

    def __init__(self, plan: Plan | MixPlan, epoch: int, step: int, first: int):
        self._plan, self._epoch, self._step, self._first = plan, epoch, step, first

    def __call__(self, slot: int) -> Iterator[int]:
        return stand_ins(self._plan, self._epoch, self._step, self._first + slot)


def keys_hash(keys: Sequence[str]) -> str:
    """16 hexadecimal digits over the keys in order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]

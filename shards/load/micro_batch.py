"""One micro batch in the making: threads fill slots of preallocated arrays while the data are hot, the last one collates."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from shards.errors import BrokenSeal, DataError
from shards.order.streams import Streams
from shards.read.arrays import ArrayPool
from shards.read.canvas import Block, Canvas
from shards.read.record import ShardRecord

if TYPE_CHECKING:
    from torch import Tensor


class Readable(Protocol):
    """A Dataset or a Mix."""

    def __getitem__(self, i: int) -> ShardRecord: ...
    def keys_of(self, indices: np.ndarray) -> list[str]: ...
    def patients_of(self, indices: np.ndarray) -> list[str]: ...


class Made(Protocol):
    """A sample as `transform` gives it."""

    @property
    def arrays(self) -> dict[str, np.ndarray]: ...


class Collated(Protocol):
    """A batch as `collate` gives it: whose samples it is made of, and what each counts in an evaluation, is written into it."""

    keys_B: tuple[str, ...]
    patients_B: tuple[str, ...]
    weight_B: Tensor


S = TypeVar("S", bound=Made)
B = TypeVar("B", bound=Collated)


class Samples(list[S]):
    """What `collate` gets: the samples, and in `stacked` their arrays already side by side [B, ...].

    An array is in `stacked` when all samples have it in one shape and dtype; the samples then hold views of it, so a collate
    that takes `stacked[name]` saves a pass over the batch, and one that does not know of it works as well.
    """

    stacked: dict[str, np.ndarray]


@dataclass(frozen=True)
class SamplePipeline(Generic[S, B]):
    """How a sample index becomes part of a batch; shared by all micro batches of a loader."""

    data: Readable
    transform: Callable[[ShardRecord, np.random.Generator], S]
    collate: Callable[[Sequence[S]], B]
    arrays: ArrayPool
    streams: Streams
    direct: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be used, and why."""

    index: int
    key: str
    error: DataError


# Sample that a thread is at, and since when: a read that does not return is told of by those who wait for it.
_at: dict[int, tuple[Readable, int, float]] = {}


def slow_readers(seconds: float) -> list[str]:
    """The threads of this process that have been at one sample for longer than so many seconds, and that sample."""
    now, names = time.monotonic(), {t.ident: t.name for t in threading.enumerate()}
    return [
        f"reader thread {names[ident]} has been at sample '{data.keys_of(np.array([index]))[0]}' for {now - since:.0f} s"
        for ident, (data, index, since) in list(_at.items())
        if now - since > seconds and ident in names
    ]


class Micro(Generic[S, B]):
    """One micro batch: `calls()` fill it, from any threads; `result()` waits for it.

    Args:
        index, repeat: int64 [B], what the plan drew.
        stand_ins: slot -> samples to try instead of a bad one; None makes a bad sample an error.
        weight: float32 [B] for an evaluation.
        keys: of the samples drawn, where the planner has looked them up already.
    """

    def __init__(
        self,
        recipe: SamplePipeline[S, B],
        epoch: int,
        index: np.ndarray,
        repeat: np.ndarray,
        stand_ins: Callable[[int], Iterator[int]] | None,
        weight: np.ndarray | None = None,
        chunk: int = 16,
        keys: Sequence[str] | None = None,
    ):
        self._recipe, self._epoch, self._stand_ins, self._weight = recipe, epoch, stand_ins, weight
        self.index, self._keys = index.copy(), keys
        # Plain numbers: scalars of an array cost more, and hold no more.
        self._draws: list[tuple[int, int]] = list(zip(index.tolist(), repeat.tolist(), strict=True))
        self._samples: list[S | None] = [None] * len(index)
        self._block = Block(len(index), recipe.arrays, recipe.direct)
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._chunk = chunk
        self._left = -(-len(index) // chunk)
        self._cancelled = False
        self._error: BaseException | None = None
        self._batch: B | None = None
        self._bad: list[tuple[int, BadSample]] = []

    def calls(self) -> list[Callable[[], None]]:
        """The work, in chunks: one hand-over to a thread for many samples."""
        size = len(self.index)
        return [partial(self.fill, lo, min(lo + self._chunk, size)) for lo in range(0, size, self._chunk)]

    def cancel(self) -> None:
        self._cancelled = True

    def result(self) -> B:
        """The batch. Raises what a worker raised, with its sample named in a note."""
        self._ready.wait()
        if self._error is not None:
            raise self._error
        assert self._batch is not None, "a micro batch that was cancelled has no batch"
        return self._batch

    @property
    def bad(self) -> list[BadSample]:
        """Bad samples in slot order, whatever the order the threads met them in."""
        return [b for _, b in sorted(self._bad, key=lambda pair: pair[0])]

    def fill(self, lo: int, hi: int) -> None:
        try:
            for slot in range(lo, hi):
                if self._cancelled or self._error is not None:
                    break
                _at[threading.get_ident()] = (self._recipe.data, self._draws[slot][0], time.monotonic())
                self._samples[slot] = self._make(slot)
        except BaseException as e:
            self._error = self._error or e
        _at.pop(threading.get_ident(), None)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish()

    def _finish(self) -> None:
        try:
            if self._error is None and not self._cancelled:
                self._batch = self._collate()
        except BaseException as e:
            self._error = e
        self._samples, self._block = [], Block(0)
        self._ready.set()

    def _make(self, slot: int) -> S:
        """The slot's sample, or the first of its stand-ins that can be read."""
        index, repeat = self._draws[slot]
        try:
            return self._sample(slot, index, repeat)
        except BrokenSeal:
            raise  # no sample of that shard can be trusted: nothing stands in for it
        except DataError as e:
            if self._stand_ins is None:
                raise
            self._note(slot, index, e)
            return self._stand_in(slot, self._stand_ins(slot), e)

    def _stand_in(self, slot: int, candidates: Iterator[int], error: DataError) -> S:
        for index in candidates:
            try:
                sample = self._sample(slot, index, 0)
            except BrokenSeal:
                raise
            except DataError as e:
                self._note(slot, index, e)
                error = e
                continue
            self.index[slot] = index
            return sample
        error.add_note("no sample is left to stand in for it: use a smaller global batch or mend the data")
        raise error

    def _note(self, slot: int, index: int, error: DataError) -> None:
        self._bad.append((slot, BadSample(index, self._recipe.data.keys_of(np.array([index]))[0], error)))

    def _sample(self, slot: int, index: int, repeat: int) -> S:
        recipe, block = self._recipe, self._block
        rng = recipe.streams.at(self._epoch, index, repeat)
        try:
            record = recipe.data[index]
            canvas = record.canvas = Canvas(block, slot)
            sample = recipe.transform(record, rng)
        except Exception as e:
            if not isinstance(e, DataError):
                key = recipe.data.keys_of(np.array([index]))[0]
                e.add_note(f"in sample '{key}' (index {index}), epoch {self._epoch}, repeat {repeat}")
            raise
        block.put(slot, sample.arrays, canvas)
        return sample

    def _collate(self) -> B:
        samples = Samples(s for s in self._samples if s is not None)
        samples.stacked = self._block.full()
        batch = self._recipe.collate(samples)
        batch.keys_B = tuple(self._recipe.data.keys_of(self.index) if self._keys is None or self._bad else self._keys)
        batch.patients_B = tuple(self._recipe.data.patients_of(self.index))
        if self._weight is not None:
            import torch

            batch.weight_B = torch.from_numpy(self._weight)
        return batch

"""Several data sets read as one, in given proportions; the mixed order is a pure function too.

Every global batch has a whole number of samples from each data set; what rounding takes from one in a batch is carried to the
next (error diffusion), so the shares follow the weights from the first batch on. Each data set runs through epochs of its own.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import add, sub
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.format.meaning import check_agreement, meanings_of
from shards.order.large import ORDER_VERSION
from shards.order.plan import WINDOW, Draws, Plan, Shuffle, check_batch
from shards.order.streams import Purpose, Streams, check_seed, stream
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from shards.read.subset import Subset

if TYPE_CHECKING:
    from shards.read.cache import Cache


class Mix:
    """Data sets one after another under one numbering: sample i is `parts[k][i - starts[k]]`."""

    def __init__(self, parts: Sequence[Dataset]):
        assert parts, "a mix needs data sets"
        self.parts = tuple(parts)
        self.starts = np.concatenate([[0], np.cumsum([len(p) for p in parts], dtype=np.int64)])
        self._starts: list[int] = self.starts.tolist()
        check_agreement([(p.path, meanings_of(p.info)) for p in parts])
        paths = [p.path.resolve() for p in parts]
        if len(set(paths)) < len(paths):
            raise bad(
                "a data set is named twice", ", ".join(map(str, paths)), "name it once and give it a larger weight"
            )

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(p.fingerprint for p in self.parts).encode()).hexdigest()

    @property
    def bytes_read(self) -> int:
        return sum(p.bytes_read for p in self.parts)

    def __getitem__(self, i: int) -> ShardRecord:
        k = self._part(i)
        return self.parts[k].numbered(i - self._starts[k], int(i))

    def keys_of(self, indices: np.ndarray) -> list[str]:
        return self._gather(indices, lambda part, at: part.keys_of(at))

    def patients_of(self, indices: np.ndarray) -> list[str]:
        return self._gather(indices, lambda part, at: part.patients_of(at))

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def _part(self, i: int) -> int:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        return bisect_right(self._starts, i) - 1

    def _gather(self, indices: np.ndarray, ask: Callable[[Dataset, np.ndarray], list[str]]) -> list[str]:
        out = np.empty(len(indices), object)
        which = np.searchsorted(self.starts, indices, "right") - 1
        for k, part in enumerate(self.parts):
            at = np.flatnonzero(which == k)
            if len(at):
                out[at] = ask(part, indices[at] - self._starts[k])
        return out.tolist()


def open_data(paths: str | Path | Sequence[str | Path], cache: Cache | None = None) -> Dataset | Mix:
    """One data set, or several as a mix; through a local cache of shards where one is given.

    Raises:
        DataError: what `Dataset.open` finds, for all of them at once.
    """
    if isinstance(paths, (str, Path)):
        return Dataset.open(paths, cache=cache)
    opened, problems = [], []
    for path in paths:
        try:
            opened.append(Dataset.open(path, cache=cache))
        except DataError as e:
            problems += e.problems
    if problems:
        raise DataError(problems)
    return opened[0] if len(opened) == 1 else Mix(opened)


class MixPlan:
    """`Plan` for a mix: shuffled streams of the parts, interleaved by weight.

    An epoch makes as many draws as all parts have samples, rounded down to whole global batches. A sample of a part with a
    large weight may come several times in it; `repeat` is then the number of the pass through its part, counted from the epoch's first.
    """

    strategy = "shuffle"

    def __init__(
        self,
        subsets: Sequence[Subset],
        offsets: Sequence[int],
        weights: Sequence[float] | None,
        seed: int,
        global_batch: int,
        window: int = WINDOW,
        order_version: int = ORDER_VERSION,
    ):
        self.order_version = order_version
        self.subsets, self.offsets = tuple(subsets), tuple(int(o) for o in offsets)
        self.sizes = [len(s) for s in subsets]
        self.seed, self.global_batch = check_seed(seed), global_batch
        check_batch(global_batch, sum(self.sizes), "the mix")
        self.weights = _shares(weights, self.sizes)
        # A seed of its own for each part, else parts of equal size would be shuffled alike.
        part_seeds = [int(stream(self.seed, 0, Purpose.MIX, k + 1, 1).integers(2**62)) for k in range(len(subsets))]
        self._streams = [
            Shuffle(s, part_seed, 1, window, order_version) for s, part_seed in zip(subsets, part_seeds, strict=True)
        ]
        self._mixes = Streams(self.seed, Purpose.MIX)
        self.versioned = any(s.large for s in self._streams)
        self.steps_per_epoch = sum(self.sizes) // global_batch
        self.counts = diffuse(self.weights, global_batch, self.steps_per_epoch)
        self._before = np.concatenate([np.zeros((1, len(subsets)), np.int64), np.cumsum(self.counts, axis=0)])

    @property
    def samples_per_epoch(self) -> int:
        return self.steps_per_epoch * self.global_batch

    @property
    def dropped(self) -> int:
        """Draws that do not fill a last global batch."""
        return sum(self.sizes) - self.samples_per_epoch

    def batch(self, epoch: int, step: int) -> Draws:
        """The global batch at (epoch, step)."""
        if not 0 <= step < self.steps_per_epoch or epoch < 0:
            raise IndexError(f"step {step} of epoch {epoch}: an epoch has {self.steps_per_epoch} steps")
        drawn = [self._draw(k, epoch, step) for k in range(len(self.subsets))]
        index, repeat = (np.concatenate([d[j] for d in drawn]) for j in (0, 1))
        mixed = self._mixes.at(epoch, step).permutation(len(index))
        return Draws(index[mixed], repeat[mixed])

    def _draw(self, k: int, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The part's samples in a batch: its stream goes on where the batches before, of this and earlier epochs, left it."""
        n, begun = self.sizes[k], epoch * int(self._before[-1, k])
        start, stop = begun + int(self._before[step, k]), begun + int(self._before[step + 1, k])
        index, repeat = [], []
        while start < stop:
            number, at = divmod(start, n)
            end = min(n, at + stop - start)
            index.append(self.subsets[k].indices[self._streams[k].take(number, at, end)] + self.offsets[k])
            repeat.append(np.full(end - at, number - begun // n))
            start += end - at
        return np.concatenate(index or [_NONE]), np.concatenate(repeat or [_NONE])

    def describe(self) -> str:
        """One sentence for the log."""
        parts = ", ".join(f"{s.source} {w:.3g}" for s, w in zip(self.subsets, self.weights, strict=True))
        return f"mix of {parts}: {self.steps_per_epoch} steps of {self.global_batch} an epoch; each part runs through epochs of its own"


_NONE = np.empty(0, np.int64)


def diffuse(weights: np.ndarray, global_batch: int, steps: int) -> np.ndarray:
    """Samples from each part in each batch: int64 [steps, parts], rows summing to G, sums following the weights."""
    # Plain numbers: arrays of a few parts cost ten times as much a step, and there are as many steps as an epoch has.
    due, parts, owed = [float(w) for w in weights * global_batch], range(len(weights)), [0.0] * len(weights)
    counts = array("q")
    for _ in range(steps):
        owed = [*map(add, owed, due)]
        row = [*map(math.floor, owed)]
        if min(row) < 0:
            row = [max(r, 0) for r in row]
        rest = global_batch - sum(row)
        if rest:
            order = sorted(parts, key=[*map(sub, row, owed)].__getitem__)  # most is owed to the first
            for k in order[: max(rest, 0)]:
                row[k] += 1
            for k in reversed(order):
                if rest < 0 and row[k] > 0:
                    row[k] -= 1
                    rest += 1
        owed = [*map(sub, owed, row)]
        counts.extend(row)
    return np.array(counts, np.int64).reshape(steps, len(weights))


def _shares(weights: Sequence[float] | None, sizes: Sequence[int]) -> np.ndarray:
    """Weights as shares of one; in proportion to the sizes when None."""
    given = np.asarray(sizes if weights is None else weights, float)
    problems = []
    if len(given) != len(sizes):
        problems.append(Problem(f"{len(given)} weights for {len(sizes)} data sets", "data.path", "give one each"))
    if not np.isfinite(given).all() or (given <= 0).any():
        problems.append(
            Problem(
                f"weights {given.tolist()}", "data.path", "give positive numbers; leave out a data set instead of 0"
            )
        )
    if problems:
        raise DataError(problems)
    return given / given.sum()


def make_plan(
    data: Dataset | Mix,
    split: str | None,
    strategy: str,
    seed: int,
    global_batch: int,
    *,
    weights: Sequence[float] | None = None,
    label: str | None = None,
    classes_per_batch: int | None = None,
    window: int = WINDOW,
    order_version: int = ORDER_VERSION,
) -> Plan | MixPlan:
    """The plan of a data set or mix.

    Raises:
        DataError: see `Plan`; a mix under another order than shuffle.
    """
    if isinstance(data, Dataset):
        if weights is not None:
            raise bad("weights for a single data set", "data.path", "leave them out, or name several data sets")
        return Plan(
            strategy,
            data.subset(split),
            seed,
            global_batch,
            label=label,
            classes_per_batch=classes_per_batch,
            window=window,
            order_version=order_version,
        )
    if strategy != "shuffle":
        what = f"order {strategy} over several data sets: batches of each would have to satisfy it together"
        raise bad(what, "data.path", "use order shuffle, or pack the data sets into one")
    return MixPlan(
        [p.subset(split) for p in data.parts],
        data.starts[:-1].tolist(),
        weights,
        seed,
        global_batch,
        window,
        order_version,
    )

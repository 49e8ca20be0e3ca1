"""The deal of `patient_unique` for large sets, from version 3 on: a step is computed when it comes, and the next few with it.

Patients with as many samples each lie one after another, fewest first, in a random order among themselves; the samples of each follow
one another, at most B of them, from a random one on in strides of random length. So position t of the deal says by two divisions whose
sample it is, and the batch that it is for is t mod B, as in `patient_unique.py`. Batches have their steps in a random order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shards.order.groups import PART, WIDEST, Groups
from shards.order.large import moves, sizes_of, spans
from shards.order.places import BLOCK, Permutations

_GOLDEN, _FIRST, _SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Patients:
    """Where the samples of patients lie, by how many there are: two bytes a patient; four a sample more where they lie apart.

    Attributes:
        size: int64 [sizes], ascending: how many samples patients have.
        alike: int64 [sizes]: how many patients have as many.
    """

    def __init__(self, patients: np.ndarray):
        self._samples: np.ndarray | None = None
        n = len(patients)
        try:
            runs = Groups(_runs(patients), n)
        except _Apart:
            self._samples = np.empty(n, np.int32 if n < 2**31 else np.int64)
            runs = Groups(_gathered(patients, self._samples), n)
        self._begin, self.size, self.alike = runs.at, runs.number, runs.count

    def sample(self, group: np.ndarray, who: np.ndarray, nth: np.ndarray, key: np.uint64) -> np.ndarray:
        """Sample `nth` [m] of patient `who` [m] of those with `size[group]` samples each, in the order that `key` gives them."""
        begin = self._begin(group, who)
        at = begin + own_order(nth, self.size[group], begin, key)
        return at if self._samples is None else self._samples[at]


class Deal:
    """One epoch's batches of G samples of G patients each, B in all."""

    def __init__(self, rng: np.random.Generator, patients: Patients, steps: int, global_batch: int, spare: int):
        self._patients, self._steps, self._batch = patients, steps, global_batch
        self._among = Permutations(rng, patients.alike.tolist())
        self._rows = Permutations(rng, [steps])
        self._key = rng.integers(0, 2**64, dtype=np.uint64)
        self._taken = np.minimum(patients.size, steps)
        self._end = np.cumsum(patients.alike * self._taken)
        gone = np.sort(rng.choice(steps * global_batch + spare, spare, replace=False, shuffle=False))
        self._gone = gone - np.arange(spare)
        self._together = max(BLOCK // global_batch, 1)
        self._block: tuple[int, np.ndarray] | None = None

    def batch(self, step: int) -> np.ndarray:
        """int64 [G]: samples."""
        number, place = divmod(step, self._together)
        known = self._block  # another thread may ask for another step meanwhile
        if known is None or known[0] != number:
            known = self._block = (number, self._made(number * self._together))
        return known[1][place]

    def _made(self, first: int) -> np.ndarray:
        row_B = self._rows.at(np.arange(first, min(first + self._together, self._steps)))
        order = np.argsort(row_B)
        t_GB = self._steps * np.arange(self._batch)[:, None] + row_B[order]  # ascending, as searches like it
        made_GB = self._dealt(t_GB.ravel()).reshape(t_GB.shape)
        made_BG = np.empty_like(made_GB, shape=made_GB.shape[::-1])
        made_BG[order] = made_GB.T
        return made_BG

    def _dealt(self, t: np.ndarray) -> np.ndarray:
        """int64 [m]: the samples at positions t [m] of the deal."""
        t = t + np.searchsorted(self._gone, t, "right")
        group = np.searchsorted(self._end, t, "right")
        t -= self._end[group] - (self._patients.alike * self._taken)[group]
        who, nth = np.divmod(t, self._taken[group])
        return self._patients.sample(group, self._among.at(who, group), nth, self._key)


def own_order(nth: np.ndarray, size: np.ndarray, owner: np.ndarray, key: np.uint64) -> np.ndarray:
    """int64 [m] below `size` [m]: (first + nth * stride) mod size, both drawn for each `owner` by `key`; no two `nth` of one are alike."""
    bits = _mixed(owner.astype(np.uint64) * _GOLDEN + key)
    first, stride = (
        ((b * size.astype(np.uint64)) >> np.uint64(32)).astype(np.int64) for b in (bits >> np.uint64(32), bits & _LOW)
    )
    while (common := np.gcd(stride, size) > 1).any():
        stride += common
    return (first + nth * stride) % size


_LOW = np.uint64(0xFFFFFFFF)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits as good as random (the last step of SplitMix64: G. L. Steele, D. Lea and C. H. Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


class _Apart(Exception):
    """A patient's samples may lie in several places."""


def _runs(codes: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(start of a part, where patients begin in it, samples of each), as `Groups` takes them.

    Raises:
        _Apart: a code is below the one before.
    """
    last, held = None, (0, np.zeros(0, np.int64))
    for start in range(0, len(codes), PART):
        part = codes[start : start + PART]
        begin = np.flatnonzero(part[1:] != part[:-1]) + 1
        if last is None or part[0] != last:
            begin = np.concatenate([[0], begin])
        if not len(begin):
            continue
        found = part[begin]
        if (found[1:] < found[:-1]).any() or (last is not None and found[0] < last):
            raise _Apart
        last = part[-1]
        if len(held[1]):
            yield *held, _sizes(held[1], start + int(begin[0]) - held[0])
        held = (start, begin)
    yield *held, _sizes(held[1], len(codes) - held[0])


def _sizes(begin: np.ndarray, end: int) -> np.ndarray:
    return np.concatenate([begin[1:], [end]]) - begin


def _gathered(codes: np.ndarray, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """As `_runs`, of `samples` in order by patient, which they are put in meanwhile, a group of patients in the cache at a time."""
    most = int(codes.max())
    # About 32,768 samples in a group, at most 2,048 groups as each is written to by turns, and 16 bits at most.
    bits = min(max((most * (1 << 15) // len(codes)).bit_length() - 1, most.bit_length() - 11, 0), 16)
    group, low = _Upper(codes, bits), np.empty(len(codes), np.uint16)
    sizes = sizes_of(group, (most >> bits) + 1)
    for at, place in moves(group, sizes):
        samples[place], low[place] = at, codes[at] & ((1 << bits) - 1)
    for start, stop in spans(sizes):
        samples[start:stop] = samples[start:stop][np.argsort(low[start:stop], kind="stable")]
        count = np.bincount(low[start:stop])
        count = count[count > 0]
        begin = np.cumsum(count) - count
        for part in range(0, stop - start, WIDEST):
            first, last = np.searchsorted(begin, [part, part + WIDEST])
            yield start + part, begin[first:last] - part, count[first:last]


class _Upper:
    """What `codes` [n] below 2^32 are without their lower bits: made as it is read, since new memory costs more than to make it twice."""

    def __init__(self, codes: np.ndarray, bits: int):
        self._codes, self._bits = codes, bits

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, part: slice) -> np.ndarray:
        return (self._codes[part] >> self._bits).astype(np.uint16)

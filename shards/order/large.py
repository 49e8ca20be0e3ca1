"""Shuffles of many numbers in time that grows with their number, and no faster.

The usual shuffle swaps every number with one at a random place, which is a look at memory each as soon as they do not fit the cache.
Here every number goes to one of up to 1,024 groups, drawn for each by itself, in one pass in order, and the groups, which fit the
cache, are shuffled: every order is as likely as before (C. R. Rao, "Generation of random permutations of given number of elements
using random sampling numbers", Sankhya A 23, 1961; M. Sandelius, "A simple randomization procedure", J. R. Stat. Soc. B 24, 1962).
It is another order than that of swaps for the same seed, so runs store which one they follow (`ORDER_VERSION`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from shards.errors import bad

ORDER_VERSION = 3
"""1: everything is shuffled by swaps. 2: what is more than `WHOLE` in groups. 3: what is more than `WHOLE` place by place (`places.py`)."""
WHOLE = 1 << 18
"""Most numbers that are shuffled by swaps: one order for all versions."""
GROUP, GROUPS = 1 << 16, 1 << 10
CHUNK, TURNED = 1 << 15, 1 << 12


def whole_of(order_version: int) -> int:
    """The most numbers that an order of this version shuffles by swaps.

    Raises:
        DataError: no such version.
    """
    if order_version not in range(1, ORDER_VERSION + 1):
        what = f"an order of version {order_version}, there are 1 to {ORDER_VERSION}"
        raise bad(what, "order_version", "go on with the medpair that the run was last trained by, or a later one")
    return sys.maxsize if order_version == 1 else WHOLE


def by_places(order_version: int, n: int) -> bool:
    """Whether n numbers are put in order place by place."""
    return order_version > 2 and n > WHOLE


def small(numbers: np.ndarray) -> np.ndarray:
    """Places below `len(numbers)`, in half the memory where they fit."""
    return numbers.astype(np.int32) if len(numbers) < 2**31 else numbers


def numbers_to(n: int) -> np.ndarray:
    """0 to n - 1."""
    return np.arange(n, dtype=np.int32 if n < 2**31 else np.int64)


def shuffled(rng: np.random.Generator, values: np.ndarray, whole: int = WHOLE) -> np.ndarray:
    """`values` [n] in a random order: the one of `rng.permutation(values)` up to `whole` of them, in groups above."""
    n = len(values)
    if n <= whole:
        mixed = values.astype(np.int64)  # NumPy swaps these a third faster than smaller numbers, at the same places
        rng.shuffle(mixed)
        return mixed.astype(values.dtype)
    groups = min(GROUPS, 1 << (-(-n // min(GROUP, whole)) - 1).bit_length())
    group = rng.integers(0, groups, n, dtype=np.uint16)
    sizes, mixed = sizes_of(group, groups), np.empty_like(values)
    for at, place in moves(group, sizes):
        mixed[place] = values[at]
    del group
    for begin, end in spans(sizes):
        mixed[begin:end] = shuffled(rng, mixed[begin:end], min(whole, 2 * GROUP))
    return mixed


class Sliced(Protocol):
    """uint16 [n], which is read in slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


def sizes_of(group: Sliced, groups: int) -> np.ndarray:
    """int64 [groups]: how many of `group`, uint16 [n], are of each."""
    sizes = np.zeros(groups, np.int64)
    for start in range(0, len(group), CHUNK):
        sizes += np.bincount(group[start : start + CHUNK], minlength=groups)
    return sizes


def moves(group: Sliced, sizes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which go where so that groups lie one after another, each in the order that it had: (places now, places then), some at a time.

    A part of `group` is put in order in the cache; what it has of a group is then written in one go.
    """
    begins = np.cumsum(sizes) - sizes
    for start in range(0, len(group), CHUNK):
        part = group[start : start + CHUNK]
        order = np.argsort(part, kind="stable")
        counts = np.bincount(part, minlength=len(sizes))
        place = np.repeat(begins - np.cumsum(counts) + counts, counts)
        place += np.arange(len(part))
        begins += counts
        order += start
        yield order, place


def spans(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """(begin, end) of groups that lie one after another."""
    ends = np.cumsum(sizes)
    return zip((ends - sizes).tolist(), ends.tolist(), strict=True)


def batches_of_patients(
    rng: np.random.Generator, patients: np.ndarray, spare: int, steps: int, global_batch: int, whole: int = WHOLE
) -> np.ndarray:
    """Places [steps, global_batch] of samples, the deal of `shards.order.patient_unique`; which step a row is for is left open.

    Patients come in a random order, the samples of each in a random order too, at most `steps` of them. Of what is left, `spare` by
    chance are left out, and position t of the rest goes to row t mod steps.

    Args:
        patients: int64 [n], codes of 0 and more, not many more than there are patients.
        spare: how many more there are than steps * global_batch.
    """
    rank = shuffled(rng, numbers_to(int(patients.max()) + 1), whole)
    bits = _bits_in_group(len(patients), len(rank))
    group, low = np.empty(len(patients), np.uint16), np.empty(len(patients), np.uint16)
    for start in range(0, len(patients), CHUNK):
        part = slice(start, start + CHUNK)
        ranks = rank[patients[part]]
        group[part], low[part] = ranks >> bits, ranks & ((1 << bits) - 1)
    sizes = sizes_of(group, ((len(rank) - 1) >> bits) + 1)
    del rank
    runs, lows = np.empty(len(patients), numbers_to(len(patients)).dtype), np.empty_like(low)
    for at, place in moves(group, sizes):
        runs[place], lows[place] = at, low[at]
    del group, low
    kept = steps * global_batch
    gone, done, seen = np.sort(rng.choice(kept + spare, spare, replace=False, shuffle=False)), 0, 0
    for begin, end in spans(sizes):
        mixed = shuffled(rng, numbers_to(end - begin), min(whole, 2 * GROUP))
        # Stable: within a patient the random order stays.
        order = mixed[np.argsort(lows[begin:end][mixed], kind="stable")]
        order = order[position_in_run(lows[begin:end][order]) < steps]
        left = np.delete(order, gone[slice(*np.searchsorted(gone, [seen, seen + len(order)]))] - seen)
        runs[done : done + len(left)] = runs[begin:end][left]  # never beyond what has been read
        done, seen = done + len(left), seen + len(order)
    return _turned(runs[:kept].reshape(global_batch, steps))


def position_in_run(values: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within every run of equal values."""
    first = np.flatnonzero(values[1:] != values[:-1]) + 1
    first = np.concatenate([[0], first])
    return np.arange(len(values)) - np.repeat(first, np.diff(np.append(first, len(values))))


def _turned(x_GB: np.ndarray) -> np.ndarray:
    """[B, G], some of B at a time, as all at once would leave the cache for every number."""
    x_BG = np.empty(x_GB.shape[::-1], x_GB.dtype)
    for start in range(0, len(x_BG), TURNED):
        x_BG[start : start + TURNED] = x_GB[:, start : start + TURNED].T
    return x_BG


def _bits_in_group(samples: int, patients: int) -> int:
    """So that 2^bits patients have about `GROUP` samples, and there are not many more than `GROUPS` groups where 16 bits allow it."""
    fits = max(GROUP * patients // samples, 1).bit_length() - 1
    few = (-(-patients // GROUPS) - 1).bit_length()
    least = max((patients - 1).bit_length() - 16, 0)
    return max(min(max(fits, few), 16), least)

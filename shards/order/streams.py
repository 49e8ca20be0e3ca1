"""Counter-based randomness: a generator is a pure function of its coordinates, so nothing has to be stored to resume.

Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the key holds the seed, the epoch and the
purpose, three of the four counter words hold coordinates, and draws advance the fourth.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import Any

import numpy as np

from shards.errors import bad


class Purpose(IntEnum):
    """Streams that must never meet."""

    SAMPLE = 0
    ORDER = 1
    WINDOW = 2
    MIX = 3
    STAND_IN = 4


_PURPOSES = 8


def stream(seed: int, epoch: int, purpose: Purpose, a: int = 0, b: int = 0, c: int = 0) -> np.random.Generator:
    """The generator at (seed, epoch, purpose, a, b, c)."""
    key = np.array([seed, epoch * _PURPOSES + purpose], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, a, b, c], np.uint64)))


def sample_rng(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """Randomness inside one sample (crop, window, mask): the same in any batch, rank, worker and restart.

    `index` is the sample's number in its data set (or mix), `repeat` tells draws of one sample within an epoch apart.
    """
    return stream(seed, epoch, Purpose.SAMPLE, index, repeat)


class Streams:
    """`stream` of one purpose without its construction: one generator a thread, set to the wanted place.

    What `at` returns is good until the thread's next call.
    """

    def __init__(self, seed: int, purpose: Purpose):
        self._seed, self._purpose = seed, int(purpose)
        self._mine = _Own()

    def at(self, epoch: int, a: int, b: int = 0) -> np.random.Generator:
        """`stream(seed, epoch, purpose, a, b)`; plain whole numbers, as tuples of them are set at half the cost of arrays."""
        mine = self._mine
        place = mine.place
        place["key"] = (self._seed, epoch * _PURPOSES + self._purpose)
        place["counter"] = (0, a, b, 0)
        mine.bits.state = mine.state
        return mine.rng


class _Own(threading.local):
    """A thread's generator, and the state that moves it: fresh but for `place`."""

    def __init__(self) -> None:
        self.rng = stream(0, 0, Purpose.SAMPLE)
        self.bits = self.rng.bit_generator
        self.state: dict[str, Any] = dict(self.bits.state, buffer=(0, 0, 0, 0))
        self.place: dict[str, tuple[int, ...]] = {}
        self.state["state"] = self.place


def check_seed(seed: int) -> int:
    """Raises DataError unless the seed fits Philox's key word."""
    if not 0 <= seed < 2**63:
        raise bad(f"seed {seed}", "seed", "give a whole number from 0 to 2**63 - 1")
    return int(seed)

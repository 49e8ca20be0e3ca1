"""What stands several times among many names, by 8 bytes a name: hashes that may only be too many, and the names they are of are compared
where that decides.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np


def repeated(names: Iterable[str]) -> set[int]:
    """`hash` of every name that stands several times."""
    hash_N = _hashes(names)
    hash_N.sort()
    return set(hash_N[1:][hash_N[1:] == hash_N[:-1]].tolist())


def torn(pairs: Iterable[tuple[str, str]]) -> set[int]:
    """`hash` of every first word that stands with several second words."""
    hash_N2 = _in_order(_hashes(word for pair in pairs for word in pair).reshape(-1, 2))
    other_N2 = hash_N2[1:] != hash_N2[:-1]
    return set(hash_N2[1:][~other_N2[:, 0] & other_N2[:, 1], 0].tolist())


def distinct(names: Iterable[str]) -> int:
    """How many different names there are (two of a billion would be taken for one in one of 10^20 cases)."""
    hash_N2 = _in_order(_hashes(word for name in names for word in (name, f"{name}\0")).reshape(-1, 2))
    return int((hash_N2[1:] != hash_N2[:-1]).any(1).sum()) + bool(len(hash_N2))


def _hashes(words: Iterable[str]) -> np.ndarray:
    """int64, in memory that grows by an eighth at a time, not by half as that of `np.fromiter`."""
    return np.frombuffer(array("q", map(hash, words)), np.int64)


def _in_order(hash_N2: np.ndarray) -> np.ndarray:
    """Sorts pairs in their place, by both halves: each is one of 16 bytes."""
    hash_N2.view(PAIR)[:, 0].sort(order=("first", "second"))
    return hash_N2


PAIR = np.dtype([("first", np.int64), ("second", np.int64)])

"""What stands several times among many names, by 8 bytes a name: hashes that may only be too many, and the names they are of are compared
where that decides.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def repeated(names: Iterable[str]) -> set[int]:
    """`hash` of every name that stands several times."""
    hashes, counts = np.unique(np.fromiter(map(hash, names), np.int64), return_counts=True)
    return set(hashes[counts > 1].tolist())


def torn(pairs: Iterable[tuple[str, str]]) -> set[int]:
    """`hash` of every first word that stands with several second words."""
    hashes_N2 = np.fromiter((hash(word) for pair in pairs for word in pair), np.int64).reshape(-1, 2)
    hashes_N2 = hashes_N2[np.lexsort((hashes_N2[:, 1], hashes_N2[:, 0]))]
    other_N2 = hashes_N2[1:] != hashes_N2[:-1]
    return set(hashes_N2[1:][~other_N2[:, 0] & other_N2[:, 1], 0].tolist())


def distinct(names: Iterable[str]) -> int:
    """How many different names there are (two of a billion would be taken for one in one of 10^20 cases)."""
    salted = ((hash(name), hash(f"{name}\0")) for name in names)
    hashes_N2 = np.fromiter((h for pair in salted for h in pair), np.int64).reshape(-1, 2)
    hashes_N2 = hashes_N2[np.lexsort((hashes_N2[:, 1], hashes_N2[:, 0]))]
    return int((hashes_N2[1:] != hashes_N2[:-1]).any(1).sum()) + bool(len(hashes_N2))

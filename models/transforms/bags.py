"""Windows and masks over bags of patches, drawn in the loader.

Shape letters: N patches of the bag, L places in the window.
"""

from __future__ import annotations

import math

import numpy as np


def window_start(N: int, L: int, rng: np.random.Generator) -> int:
    """First patch of a window of L consecutive ones, uniform over all windows; 0 for a bag too short."""
    return int(rng.integers(0, N - L + 1)) if N > L else 0


def tiled(N: int, L: int) -> np.ndarray:
    """Patch at each of L places when a bag of N <= L patches is repeated to fill the window, [L]."""
    return np.arange(L) % N


def draw_mask(N: int, L: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Places to hide, bool [L], when min(N, L) different patches stand in the window, tiled to L.

    Exactly round(ratio * L) places, all copies of a patch together (a visible copy would give the answer away),
    uniform over all sets of patches that do so. Where no set does (three patches in 16 places), the largest reachable
    number below.
    """
    n = min(N, L)
    copies, longer = divmod(L, n)
    more, fewer = _split(round(ratio * L), copies, longer, n - longer, rng)
    hidden_n = np.zeros(n, dtype=bool)
    # The first `longer` patches stand in the window once more than the others.
    hidden_n[rng.permutation(longer)[:more]] = True
    hidden_n[longer + rng.permutation(n - longer)[:fewer]] = True
    return hidden_n[tiled(n, L)]


def _split(places: int, copies: int, longer: int, shorter: int, rng: np.random.Generator) -> tuple[int, int]:
    """How many patches with copies + 1 and with `copies` places to hide, to fill `places` or the most below."""
    for target in range(places, -1, -1):
        low, high = max(0, target - (copies + 1) * longer), target // copies
        # (a, b) with a * (copies + 1) + b * copies = target; each weighed by the number of sets that have it.
        pairs = [
            (a, b)
            for b in range(-(-low // copies), min(shorter, high) + 1)
            for a, rest in [divmod(target - b * copies, copies + 1)]
            if rest == 0 and a <= longer
        ]
        if pairs:
            weight = np.array([_log_choose(longer, a) + _log_choose(shorter, b) for a, b in pairs])
            chance = np.exp(weight - weight.max())
            return pairs[int(rng.choice(len(pairs), p=chance / chance.sum()))]
    raise AssertionError("hiding nothing is always possible")


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

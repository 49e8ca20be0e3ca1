"""What several metrics make of the same weights, made once.

Weights that are kept for all metrics of a test set (resampling.py) cannot be written to, so that what was made of them stays true. What is
kept here is found by identity and is little: the last few results of a function, whatever asks for them.

Shape letters: R resamples, N cases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import numpy as np

Owner = TypeVar("Owner")
Made = TypeVar("Made")
Making = Callable[[Owner, np.ndarray], Made]
# Of whole and half numbers below it a float32 holds each.
EXACT = 2.0**23


def of_same(most: int) -> Callable[[Making[Owner, Made]], Making[Owner, Made]]:
    """Decorates f(owner, W_RN): its last `most` results are given again for the same two objects; nobody may write to them.

    Weights that can be written to are computed anew each time.
    """

    def around(f: Making[Owner, Made]) -> Making[Owner, Made]:
        kept: deque[tuple[Owner, np.ndarray, Made]] = deque(maxlen=most)

        @wraps(f)
        def of(owner: Owner, W_RN: np.ndarray) -> Made:
            if W_RN.flags.writeable:
                return f(owner, W_RN)
            for who, weights, found in tuple(kept):
                if who is owner and weights is W_RN:
                    return found
            found = f(owner, W_RN)
            kept.append((owner, W_RN, found))
            return found

        return of

    return around


@of_same(2)
def _narrow(owner: None, W_RN: np.ndarray) -> tuple[np.ndarray, float]:
    """As float32, laid out alike, and the most that was drawn at a time."""
    return W_RN.astype(np.float32), float(W_RN.sum(1).max(initial=0))


def narrow(W_RN: np.ndarray, times: int = 1) -> np.ndarray:
    """The weights as float32 where sums over pairs of cases, each case up to `times` times in a question, are exact in it; else themselves.

    Half the bytes, and the same sums: weights are whole numbers, and of M cases drawn no more than M^2 / 2 pairs count.
    """
    if W_RN.flags.writeable:
        return W_RN
    narrow_RN, most = _narrow(None, W_RN)
    return narrow_RN if (times * most) ** 2 / 2 < EXACT else W_RN

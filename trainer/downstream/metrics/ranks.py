"""Ranks of several systems over several tasks: Friedman's test and Nemenyi's critical difference.

Source: Demsar 2006, J. Mach. Learn. Res. 7, 1 (section 3.2). Shape letters: N tasks, K systems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranked:
    rank_NK: np.ndarray
    """Rank of each system in each task, 1 the best; equal values share the mean of their ranks."""
    mean_K: np.ndarray
    chi2: float
    f: float
    """Iman and Davenport's statistic, with (K - 1) and (K - 1)(N - 1) degrees of freedom."""
    p: float
    critical: float
    """Mean ranks that differ by this much differ with p < `alpha` over all pairs (Nemenyi)."""
    alpha: float


def ranked(value_NK: np.ndarray, alpha: float = 0.05) -> Ranked:
    """Ranks of values where higher is better (section 3.2.2); at least two tasks and two systems, no missing value."""
    from scipy.stats import f as f_distribution
    from scipy.stats import rankdata

    (N, K), rank_NK = value_NK.shape, rankdata(-value_NK, axis=1)
    mean_K = rank_NK.mean(0)
    chi2 = float(12 * N / (K * (K + 1)) * ((mean_K**2).sum() - K * (K + 1) ** 2 / 4))
    left = N * (K - 1) - chi2
    # All tasks give one order: the statistic has no bound.
    f = (N - 1) * chi2 / left if left > 1e-9 else math.inf
    p = float(f_distribution.sf(f, K - 1, (K - 1) * (N - 1)))
    return Ranked(rank_NK, mean_K, chi2, f, p, critical_difference(N, K, alpha), alpha)


def critical_difference(tasks: int, systems: int, alpha: float = 0.05) -> float:
    """In mean ranks: q sqrt(K (K + 1) / (6 N)), q of the Studentized range divided by sqrt(2)."""
    from scipy.stats import studentized_range

    q = studentized_range.ppf(1 - alpha, systems, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(systems * (systems + 1) / (6 * tasks)))


def cliques(mean_K: np.ndarray, critical: float) -> list[tuple[int, int]]:
    """The longest runs of ascending mean ranks whose ends differ by less than `critical`: (first, last), two systems or more."""
    runs: list[tuple[int, int]] = []
    for first in range(len(mean_K)):
        last = int(np.flatnonzero(mean_K - mean_K[first] < critical)[-1])
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs

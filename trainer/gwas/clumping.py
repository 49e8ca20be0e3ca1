"""Clumps: the strongest associations, each with the variants around it that it accounts for. The rules are those of plink1.9 --clump.

Shape letters: N founders, M variants of a chromosome in order of position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.gwas.haplotypes import haplotype_r2

BINS = (0.05, 0.01, 0.001, 0.0001)
REGION = 1_000_000


@dataclass(frozen=True)
class Rules:
    """p1: the largest P of an index variant (inclusive). p2: a member is listed below it. r2: a member's is above it. kb: and nearer."""

    p1: float = 5e-8
    p2: float = 1e-7
    r2: float = 0.1
    kb: float = 150.0


@dataclass(frozen=True)
class Clump:
    """index, members and listed are columns of the chromosome; bins: members of P >= .05, < .05, < .01, < .001, < .0001."""

    index: int
    log10_p: float
    members: tuple[int, ...]
    listed: tuple[int, ...]
    bins: tuple[int, ...]


def clump(
    position_M: np.ndarray, log10_p_M: np.ndarray, read: Callable[[np.ndarray], np.ndarray], rules: Rules
) -> list[Clump]:
    """Greedy clumps of one chromosome, by P; of equal P, the first by position.

    A clump takes all variants that are free, near and in disequilibrium with its index, whatever their own P; `p2` only decides which of
    them are listed. A variant without P takes no part.

    Args:
        position_M: base pairs, ascending.
        read: copies of an allele [columns, N] int8 of some columns, of all founders; below 0 a missing call.
    """
    known_M = ~np.isnan(log10_p_M)
    free_M = known_M.copy()
    candidates = np.flatnonzero(known_M & (log10_p_M <= np.log10(rules.p1)))
    found = []
    for index in candidates[np.argsort(log10_p_M[candidates], kind="stable")].tolist():
        if not free_M[index]:
            continue
        free_M[index] = False
        members = _members(index, position_M, free_M, read, rules)
        free_M[members] = False
        listed = members[log10_p_M[members] < np.log10(rules.p2)]
        found.append(Clump(index, float(log10_p_M[index]), (*members.tolist(),), (*listed.tolist(),),
                           _binned(log10_p_M[members])))  # fmt: skip
    return found


def _members(
    index: int, position_M: np.ndarray, free_M: np.ndarray, read: Callable[[np.ndarray], np.ndarray], rules: Rules
) -> np.ndarray:
    reach = rules.kb * 1000
    first = int(np.searchsorted(position_M, position_M[index] - reach, "right"))
    last = int(np.searchsorted(position_M, position_M[index] + reach, "left"))
    near = first + np.flatnonzero(free_M[first:last])
    if not len(near):
        return near
    count_MN = read(np.concatenate([[index], near]))
    # NaN, where one of both does not vary, is no disequilibrium.
    return near[haplotype_r2(count_MN[0], count_MN[1:]) > rules.r2]


def _binned(log10_p_M: np.ndarray) -> tuple[int, ...]:
    place_M = (log10_p_M[:, None] < np.log10(BINS)).sum(1)
    return (*np.bincount(place_M, minlength=len(BINS) + 1).tolist(),)


def regions(places: Sequence[tuple[str, int]], reach: int = REGION) -> int:
    """Number of regions that index variants (chromosome, position) lie in, where neighbours within `reach` base pairs share one."""
    ordered = sorted(places)
    return sum(
        i == 0 or ordered[i - 1][0] != chromosome or at - ordered[i - 1][1] > reach
        for i, (chromosome, at) in enumerate(ordered)
    )

"""Haplotype r2 against a search over all frequencies; clumps by the rules, each edge by itself."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.gwas.plink import blocks
from trainer.gwas.clumping import Rules, clump, regions
from trainer.gwas.haplotypes import haplotype_r2, r2_of_tables


def by_search(one_N: np.ndarray, two_N: np.ndarray) -> float:
    """r2 at the likeliest of very many haplotype frequencies."""
    kept = (one_N >= 0) & (two_N >= 0)
    a, b = one_N[kept].astype(int), two_N[kept].astype(int)
    p, q = a.mean() / 2, b.mean() / 2
    low, high = max(0.0, p + q - 1), min(p, q)
    best = (low, high)
    for _ in range(6):  # ever finer around the best
        x = np.linspace(*best, 4001)
        f = {(1, 1): x, (1, 0): p - x, (0, 1): q - x, (0, 0): 1 - p - q + x}
        likelihood = np.zeros_like(x)
        for i, j in zip(a, b, strict=True):
            if (i, j) == (1, 1):
                chance = f[1, 1] * f[0, 0] + f[1, 0] * f[0, 1]
            else:
                pairs = [((i + 1) // 2, (j + 1) // 2), (i // 2, j // 2)]
                chance = f[pairs[0]] * f[pairs[1]]
            likelihood += np.log(np.maximum(chance, 1e-300))
        at = int(likelihood.argmax())
        best = (x[max(at - 2, 0)], x[min(at + 2, len(x) - 1)])
    return float((x[at] - p * q) ** 2 / (p * (1 - p) * q * (1 - q)))


def test_r2_is_that_of_the_likeliest_haplotypes() -> None:
    rng = np.random.default_rng(8)
    count_MN = blocks(rng, 70, 12, length=6, missing=0.05).T
    found = haplotype_r2(count_MN[0], count_MN[1:])
    wanted = [by_search(count_MN[0], g) for g in count_MN[1:]]
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert max(wanted) > 0.3
    squared = [
        np.corrcoef(*pair[:, (pair >= 0).all(0)])[0, 1] ** 2
        for pair in (np.stack([count_MN[0], g]) for g in count_MN[1:])
    ]
    assert np.abs(found - squared).max() > 1e-3, "it is not the correlation of genotypes"


def test_r2_of_equal_and_of_constant_variants() -> None:
    g = np.array([0, 1, 2, 1, 0, 1], np.int8)
    found = haplotype_r2(g, np.stack([g, 2 - g, np.ones(6, np.int8) * 2, np.full(6, -127, np.int8)]))
    np.testing.assert_allclose(found[:2], 1)
    assert np.isnan(found[2:]).all()
    assert r2_of_tables(np.zeros((0, 3, 3))).shape == (0,)


POSITIONS = np.array([1000, 150_999, 151_000, 400_000, 400_010])
SAME = np.tile(np.array([0, 1, 2, 1, 0, 2, 1, 0], np.int8), (5, 1))


def clumped(
    p: list[float], rules: Rules, count_MN: np.ndarray = SAME
) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    with np.errstate(divide="ignore"):
        found = clump(POSITIONS, np.log10(np.array(p)), lambda at: count_MN[at], rules)
    return [(c.index, c.members, c.listed) for c in found]


def test_members_are_nearer_than_the_distance_and_used_up_whatever_their_p() -> None:
    rules = Rules(1e-4, 1e-3, 0.1, 150)
    assert clumped([1e-6, 0.9, 1e-5, 1e-7, 1e-4], rules) == [(3, (4,), (4,)), (0, (1,), ()), (2, (), ())]
    assert clumped([1e-6, 0.9, 1e-5, 1e-7, 1e-3], rules)[0] == (3, (4,), ()), (
        "p2 is strict and decides who is listed alone"
    )
    assert clumped([1e-6, 0.9, 1e-5, 0.5, 0.5], Rules(1e-4, 1e-3, 0.1, 150.001))[0][1] == (1, 2)
    assert clumped([0.5, 0.9, 1e-6, 0.5, 0.5], rules)[0][1] == (1,), "the same to the left: 150,000 is out"


def test_ties_go_by_position_p1_counts_and_unknown_p_takes_no_part() -> None:
    rules = Rules(1e-4, 1e-3, 0.1, 150)
    assert [c[0] for c in clumped([1e-4, np.nan, 1e-4, 1e-4, 1e-4], rules)] == [0, 2, 3]
    assert clumped([1e-4, np.nan, 1.01e-4, 0.5, 0.5], rules) == [(0, (), ())]
    assert clumped([0.0, 1e-9, 0.5, 0.5, 0.5], rules)[0][:2] == (0, (1,)), "a P of 0 is the smallest"


def test_r2_must_be_above_its_threshold() -> None:
    half = np.array([0, 0, 0, 0, 2, 2, 2, 2], np.int8)
    other = np.array([0, 0, 2, 2, 2, 2, 2, 2], np.int8)
    r2 = haplotype_r2(half, other[None])[0]
    assert r2 == pytest.approx(1 / 3)
    for threshold, joined in ((0.3333, True), (0.3334, False)):
        found = clumped(
            [1e-6, 0.5, np.nan, np.nan, np.nan], Rules(1e-4, 1e-3, threshold, 150), np.stack([half, other, *SAME[:3]])
        )
        assert bool(found[0][1]) == joined


def test_bins_and_regions() -> None:
    with np.errstate(divide="ignore"):
        (found,) = clump(np.arange(8), np.log10([1e-9, 0.05, 0.04, 0.01, 0.009, 1e-3, 1e-4, 1e-5]), lambda at: SAME[np.zeros(len(at), int)],
                         Rules(1e-8, 1e-7, 0.1, 150))  # fmt: skip
    assert found.bins == (1, 2, 2, 1, 1)
    assert regions([("1", 10), ("1", 1_000_010), ("1", 2_000_011), ("2", 2_000_011)]) == 3
    assert regions([]) == 0

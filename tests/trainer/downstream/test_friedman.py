"""Friedman's test and Nemenyi's critical difference against the example and table of Demsar 2006 and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from trainer.downstream.metrics.ranks import cliques, critical_difference, ranked

# Table 6 of Demsar 2006: ranks of four algorithms on fourteen data sets.
EXAMPLE_NK = np.array([
    (4, 3, 2, 1), (1, 2, 3, 4), (4, 1, 2, 3), (4, 1, 3, 2), (4, 2, 3, 1), (1, 2.5, 4, 2.5), (3, 2, 4, 1), (2.5, 2.5, 4, 1),
    (4, 3, 2, 1), (2.5, 2.5, 2.5, 2.5), (4, 2.5, 1, 2.5), (3, 2, 4, 1), (4, 1, 2, 3), (3, 1, 4, 2),
])  # fmt: skip


def test_the_example_of_the_paper() -> None:
    r = ranked(-EXAMPLE_NK)
    assert (r.rank_NK == EXAMPLE_NK).all()
    assert r.mean_K.round(3).tolist() == [3.143, 2.0, 2.893, 1.964]
    assert r.chi2 == pytest.approx(9.28, abs=0.005)
    assert r.f == pytest.approx(3.69, abs=0.005)
    assert 0.01 < r.p < 0.05
    assert critical_difference(14, 4, 0.10) == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize(("systems", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_the_papers_table(systems: int, q: float) -> None:
    found = critical_difference(7, systems) / math.sqrt(systems * (systems + 1) / 42)
    assert found == pytest.approx(q, abs=0.0011)


def test_without_ties_the_statistic_is_scipys() -> None:
    value_NK = np.random.default_rng(0).normal(size=(9, 6))
    assert ranked(value_NK).chi2 == pytest.approx(friedmanchisquare(*value_NK.T).statistic)


def test_one_order_everywhere_and_no_order_at_all() -> None:
    r = ranked(np.tile([3.0, 1.0, 2.0], (6, 1)))
    assert r.mean_K.tolist() == [1, 3, 2]
    assert r.p == 0
    assert ranked(np.ones((6, 3))).p == 1


def test_runs_are_the_longest_ones() -> None:
    assert cliques(np.array([1.0, 2.0, 2.5, 4.0]), 1.6) == [(0, 2), (2, 3)]
    assert cliques(np.array([1.0, 3.0]), 2.0) == [], "what differs by the critical difference is told apart"

"""Equivalence over tasks: against the same model drawn, and in its limits."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.downstream.metrics.equivalence import BETWEEN, over_tasks


def drawn(d_K: np.ndarray, e_K: np.ndarray, rope: float) -> tuple[float, float, float]:
    """The model by weighing draws of (mu, tau) from its prior by the likelihood, each task's own effect integrated out."""
    rng, n = np.random.default_rng(0), 400_000
    mu_R, tau_R = rng.uniform(-0.3, 0.3, n), np.abs(rng.normal(0, BETWEEN, n))
    variance_RK = e_K**2 + tau_R[:, None] ** 2
    log_R = -0.5 * (np.log(variance_RK) + (d_K - mu_R[:, None]) ** 2 / variance_RK).sum(1)
    w_R = np.exp(log_R - log_R.max())
    shares = [w_R[at].sum() / w_R.sum() for at in (mu_R > rope, np.abs(mu_R) <= rope, mu_R < -rope)]
    return shares[0], shares[1], shares[2]


@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_equals_the_model_drawn(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    d_K, e_K = rng.normal(0.015, 0.02, tasks), rng.uniform(0.01, 0.03, tasks)
    found = over_tasks(d_K, e_K)
    assert (found.above, found.within, found.below) == pytest.approx(drawn(d_K, e_K, 0.01), abs=0.02)
    assert found.above + found.within + found.below == pytest.approx(1)
    assert found.low < found.mean < found.high
    turned = over_tasks(-d_K, e_K)
    assert (turned.above, turned.low) == pytest.approx((found.below, -found.high))


def test_many_tasks_alike_are_equivalent_and_many_apart_are_not() -> None:
    assert over_tasks([0.001, -0.001] * 10, [0.005] * 20).within > 0.95
    assert over_tasks([0.05] * 20, [0.01] * 20).above > 0.99
    assert over_tasks([0.0, 0.0], [0.05, 0.05]).within < 0.5, "two uncertain tasks say little"

"""Whether two systems are the same for all practical purposes, over several tasks: a region of practical equivalence (ROPE).

The differences of tasks are taken for draws around a mean (random effects): d_k ~ N(delta_k, e_k^2), delta_k ~ N(mu, tau^2), with a flat
prior of mu and a half-normal one of tau, as in Gelman and others, Bayesian Data Analysis, section 5.4, and Roever, Journal of Statistical
Software 93, 2020. What lies within -r and r counts as no difference (Benavoli and others, Journal of Machine Learning Research 18, 2017,
whose hierarchical model this is in closed form but for tau, which is summed over).

Shape letters: K tasks, T values of tau.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROPE = 0.01
"""Half of the region, where nothing else is asked for: one point of an area or a share."""
BETWEEN = 0.05
"""Scale of the half-normal prior of how far tasks' differences lie from their mean."""
STEPS = 400


@dataclass(frozen=True)
class Over:
    """Of so many tasks: the mean difference with its 95 % credible interval, and how probable it is that it lies above, within and below
    the region; these sum to 1."""

    tasks: int
    mean: float
    low: float
    high: float
    above: float
    within: float
    below: float


def over_tasks(difference_K: Sequence[float], error_K: Sequence[float], rope: float = ROPE) -> Over:
    """The mean of differences, each with its standard error (above 0), of two tasks or more."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    d_K, e_K = np.asarray(difference_K, float), np.asarray(error_K, float)
    assert len(d_K) > 1, "one task has an interval of its own"
    assert (e_K > 0).all(), "a difference without an error is no draw"
    tau_T = (np.arange(STEPS) + 0.5) / STEPS * 5 * BETWEEN
    weight_TK = 1 / (e_K**2 + tau_T[:, None] ** 2)
    mu_T, sd_T = (weight_TK @ d_K) / weight_TK.sum(1), weight_TK.sum(1) ** -0.5
    # p(tau | d), the mean integrated out.
    log_T = 0.5 * np.log(weight_TK).sum(1) + np.log(sd_T) - 0.5 * (weight_TK * (d_K - mu_T[:, None]) ** 2).sum(1)
    log_T = log_T - 0.5 * (tau_T / BETWEEN) ** 2
    p_T = np.exp(log_T - log_T.max())
    p_T /= p_T.sum()

    def below(x: float) -> float:
        return float(p_T @ norm.cdf(x, mu_T, sd_T))

    reach = 10 * float(sd_T.max()) + float(np.abs(mu_T).max())
    low, high = (brentq(lambda x, q=q: below(x) - q, -reach, reach) for q in (0.025, 0.975))
    lower, upper = below(-rope), below(rope)
    return Over(len(d_K), float(p_T @ mu_T), low, high, 1 - upper, upper - lower, lower)

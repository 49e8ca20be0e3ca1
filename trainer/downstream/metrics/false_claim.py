"""How probable it is that "A is better than B" is false, after what was measured.

Christodoulou and others, "False Promises in Medical Imaging AI? Assessing Validity of Outperformance Claims", arXiv 2505.04720. A claim is
false where B is as good or better. Two forms, both of independent cases:

shares   accuracy. Of n cases x_a are right by A alone and x_b by B alone; under a uniform prior the shares of both and of the rest are
         Dirichlet(x_a + 1, x_b + 1, n - x_a - x_b + 2), and P(p_A <= p_B) is a Beta distribution's below one half.
means    a score of each case, such as Dice. Under the usual flat prior the difference of means is Student's t with n - 1 degrees of
         freedom: P(mu_A <= mu_B) = T((m_B - m_A) sqrt(n) / sqrt(s_A^2 + s_B^2 - 2 r s_A s_B)).

Where several cases belong to a patient, several seeds to a system, or a metric is neither, the same flat prior gives half the two-sided p
of the paired test (statistics.py), which knows of patients and seeds.
"""

from __future__ import annotations

import math

import numpy as np


def of_shares(only_a: float, only_b: float) -> float:
    """P(p_A <= p_B), where so many cases are right by A alone and by B alone.

    How many there are beside these makes no difference: their share cancels.
    """
    from scipy.special import betainc

    return float(betainc(only_a + 1, only_b + 1, 0.5))


def of_means(a: float, b: float, sd_a: float, sd_b: float, correlation: float, n: int) -> float:
    """P(mu_A <= mu_B), from means, standard deviations (ddof 1) and the correlation of n cases' scores; 1 of means alike."""
    from scipy.stats import t

    sd = math.sqrt(max(sd_a**2 + sd_b**2 - 2 * correlation * sd_a * sd_b, 0.0))
    if n < 2 or sd == 0:
        return math.nan if n < 2 else float(a <= b)
    return float(t.cdf((b - a) * math.sqrt(n) / sd, n - 1))


def of_numbers(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """The form that fits the numbers of two systems' independent cases: rights and wrongs, or scores.

    Which of both is claimed to be better is A; NaN where a case has no number.
    """
    if np.isnan(a_N).any() or np.isnan(b_N).any() or len(a_N) < 2:
        return math.nan
    if np.isin([a_N, b_N], (0, 1)).all():
        return of_shares(float((a_N > b_N).sum()), float((a_N < b_N).sum()))
    # Of the differences themselves, whose deviation is what the formula makes of both systems' own: no rounding where both are alike.
    return of_means(float((a_N - b_N).mean()), 0.0, float((a_N - b_N).std(ddof=1)), 0.0, 0.0, len(a_N))

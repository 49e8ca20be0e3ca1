"""The probability that a claim is false: the published formulas against their integrals, and what a paired test makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.special import gammaln
from scipy.stats import norm, ttest_rel

from tests.trainer.downstream.cohorts import make
from trainer.downstream.metrics import false_claim
from trainer.downstream.metrics.statistics import paired


@pytest.mark.parametrize(
    ("only_a", "only_b", "rest"), [(0, 0, 10), (7, 3, 40), (3, 7, 40), (12, 4, 0), (2.5, 1.25, 30)]
)
def test_shares_equal_the_integral_of_the_posterior(only_a: float, only_b: float, rest: float) -> None:
    """The double integral of Dirichlet(x_a + 1, x_b + 1, n - x_a - x_b + 2) over p_a <= p_b, as the paper writes it."""
    alpha = np.array([only_a + 1, only_b + 1, rest + 2])
    constant = gammaln(alpha.sum()) - gammaln(alpha).sum()

    def density(a: float, b: float) -> float:
        return float(np.exp(constant + ((alpha - 1) * np.log([a, b, max(1 - a - b, 1e-300)])).sum()))

    direct = dblquad(density, 0, 1, 0, lambda b: min(b, 1 - b), epsabs=1e-9, epsrel=1e-9)[0]
    assert false_claim.of_shares(only_a, only_b) == pytest.approx(direct, abs=1e-6)


def test_means_equal_the_posterior_drawn_and_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a_N = rng.normal(0.8, 0.1, 30)
    b_N = 0.6 * a_N + rng.normal(0.3, 0.08, 30)
    found = false_claim.of_numbers(a_N, b_N)
    moments = (a_N.mean(), b_N.mean(), a_N.std(ddof=1), b_N.std(ddof=1), np.corrcoef(a_N, b_N)[0, 1], 30)
    assert false_claim.of_means(*moments) == pytest.approx(found, abs=1e-12)
    assert found == pytest.approx(ttest_rel(a_N, b_N, alternative="greater").pvalue, abs=1e-12)
    # mu | sigma, data is normal; sigma^2 | data is scaled inverse chi-square: both drawn.
    d_N, n = a_N - b_N, 30
    sigma_R = np.sqrt((n - 1) * d_N.var(ddof=1) / rng.chisquare(n - 1, 400_000))
    drawn = norm.cdf(0, d_N.mean(), sigma_R / np.sqrt(n)).mean()
    assert found == pytest.approx(drawn, abs=2e-3)


def test_means_of_equal_scores() -> None:
    same = np.linspace(0.2, 0.9, 8)
    assert false_claim.of_numbers(same, same) == 1
    assert false_claim.of_means(0.8, 0.7, 0.1, 0.1, 1.0, 8) == 0
    assert np.isnan(false_claim.of_means(0.8, 0.7, 0.1, 0.1, 0.5, 1))


def test_a_paired_test_takes_the_published_form_where_it_holds() -> None:
    """One case a patient and one seed: accuracy by shares, whichever system is the better one; else half of p."""
    truth_N = np.arange(40) % 2
    right = np.where(truth_N == 1, 0.9, 0.1)
    a, b = right.copy(), right.copy()
    a[:3], b[10:19] = 1 - a[:3], 1 - b[10:19]
    exact = false_claim.of_shares(9, 3)
    for x, y in ((a, b), (b, a)):
        found = paired([make("binary", truth_N, x)], [make("binary", truth_N, y)], "accuracy", draws=200)
        assert found.false_claim == exact
    p, q = (make("binary", truth_N, x, per_patient=2) for x in (a, b))
    several = paired([p], [q], "accuracy", draws=200)
    assert several.false_claim == several.p / 2
    slope = paired([p], [q], "calibration_slope", draws=200)
    assert slope.p == slope.p, "there is a difference"
    assert slope.false_claim != slope.false_claim, "the larger slope is not the better one"
    seeds = paired([make("binary", truth_N, a)] * 2, [make("binary", truth_N, b)], "accuracy", draws=200)
    assert seeds.false_claim == seeds.p / 2


def test_dice_takes_the_form_of_means() -> None:
    rng = np.random.default_rng(1)
    true_N = np.full(20, 100.0)
    a_N, b_N = (rng.integers(40, 100, 20).astype(float) for _ in "ab")
    a, b = (make("segmentation", true_N, np.stack([x, np.full(20, 100.0)], 1)) for x in (a_N, b_N))
    found = paired([a], [b], "dice_patient", draws=100)
    assert found.false_claim == pytest.approx(ttest_rel(a_N, b_N).pvalue / 2, abs=1e-9)

"""Estimates against least squares, person by person; P values against arbitrary precision; neither order nor blocks matter."""

from __future__ import annotations

from pathlib import Path

import mpmath
import numpy as np
import pytest
from scipy import stats

from tests.trainer.gwas.plink import blocks
from trainer.gwas.covariates import basis_of
from trainer.gwas.linear import COLLINEAR, CONSTANT, CORRELATED, FITTED, TOO_FEW, Estimates, Model, associate
from trainer.gwas.phenotypes import inverse_normal, principal_components, residuals
from trainer.gwas.student import as_text, genomic_inflation, log10_p

PEOPLE, VARIANTS, PHENOTYPES = 120, 60, 3


def model_of(covariates_NC: np.ndarray, y_NP: np.ndarray) -> Model:
    names = [f"c{i}" for i in range(covariates_NC.shape[1])]
    basis = basis_of(names, covariates_NC, Path("table"))
    return Model.of(basis.q_NC, y_NP, basis.z_NC)


def by_least_squares(g_N: np.ndarray, covariates_NC: np.ndarray, y_N: np.ndarray) -> tuple[float, float, float, int]:
    """beta, se, P and people, from the normal equations of those whose call is known, after centring and scaling."""
    kept = g_N >= 0
    z_NC = covariates_NC[kept] - covariates_NC[kept].mean(0)
    x_NC = np.column_stack([g_N[kept], np.ones(kept.sum()), z_NC / z_NC.std(0)])
    solved, _, rank, _ = np.linalg.lstsq(x_NC, y_N[kept], rcond=None)
    assert rank == x_NC.shape[1]
    left, df = y_N[kept] - x_NC @ solved, kept.sum() - rank
    se = np.sqrt(left @ left / df * np.linalg.inv(x_NC.T @ x_NC)[0, 0])
    return solved[0], se, 2 * stats.t.sf(abs(solved[0] / se), df), int(kept.sum())


@pytest.fixture(scope="module")
def study() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(copies [M, N] with missing calls, covariates of scales from 1e-3 to 1e3 and far from 0, phenotypes)."""
    rng = np.random.default_rng(5)
    count_MN = blocks(rng, PEOPLE, VARIANTS, missing=0.06).T
    covariates_NC = rng.normal(size=(PEOPLE, 4)) * [1, 1e3, 1e-3, 5] + [0, 1e5, 0, 1957]
    y_NP = rng.normal(size=(PEOPLE, PHENOTYPES)) + 0.8 * np.maximum(count_MN[3], 0)[:, None] * [1, 0, 0]
    return np.ascontiguousarray(count_MN), covariates_NC, y_NP


def same(a: Estimates, b: Estimates, sign: float = 1.0) -> None:
    for one, two in (
        (a.beta_PM, sign * b.beta_PM),
        (a.se_PM, b.se_PM),
        (a.t_PM, sign * b.t_PM),
        (a.log10_p_PM, b.log10_p_PM),
    ):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


def test_every_estimate_is_that_of_least_squares_on_complete_cases(study) -> None:
    count_MN, covariates_NC, y_NP = study
    found = associate(model_of(covariates_NC, y_NP), count_MN)
    assert (count_MN < 0).any(1).sum() > VARIANTS // 2
    assert (found.code_M == FITTED).all()
    for m in range(VARIANTS):
        for p in range(PHENOTYPES):
            beta, se, pvalue, n = by_least_squares(count_MN[m].astype(float), covariates_NC, y_NP[:, p])
            got = (found.beta_PM[p, m], found.se_PM[p, m], 10 ** found.log10_p_PM[p, m])
            np.testing.assert_allclose(got, (beta, se, pvalue), rtol=1e-8)
            assert found.n_M[m] == n
    assert found.log10_p_PM[0].argmin() < 5, "the strongest lies in the planted one's block"


def test_every_fifth_estimate_is_that_of_statsmodels(study) -> None:
    """An oracle that shares no code: its OLS on the people whose call is known, covariates and intercept beside the variant."""
    from statsmodels.api import OLS, add_constant

    count_MN, covariates_NC, y_NP = study
    found = associate(model_of(covariates_NC, y_NP), count_MN)
    z_NC = (covariates_NC - covariates_NC.mean(0)) / covariates_NC.std(0)
    for m in range(0, VARIANTS, 5):
        kept = count_MN[m] >= 0
        x_NC = add_constant(np.column_stack([count_MN[m, kept], z_NC[kept]]))
        for p in range(PHENOTYPES):
            fit = OLS(y_NP[kept, p], x_NC).fit()
            got = (found.beta_PM[p, m], found.se_PM[p, m], found.t_PM[p, m], 10 ** found.log10_p_PM[p, m], found.n_M[m])
            expected = (fit.params[1], fit.bse[1], fit.tvalues[1], fit.pvalues[1], fit.nobs)
            np.testing.assert_allclose(got, expected, rtol=1e-7)


def test_covariates_a_million_times_larger_change_no_digit(study) -> None:
    count_MN, covariates_NC, y_NP = study
    scaled = covariates_NC * [1e6, 1e-6, 1, 1] + [1e6, 0, 0, 0]
    same(associate(model_of(scaled, y_NP), count_MN), associate(model_of(covariates_NC, y_NP), count_MN))


def test_covariates_far_from_0_lose_no_digit(study) -> None:
    """Whole numbers, so that the table itself holds them exactly; without centring digits of the estimates would be lost."""
    count_MN, _, y_NP = study
    days_NC = np.random.default_rng(2).integers(0, 40, (PEOPLE, 2)).astype(float)
    same(associate(model_of(days_NC + 1e11, y_NP), count_MN), associate(model_of(days_NC, y_NP), count_MN))


def test_order_of_people_and_the_counted_allele_do_not_matter(study) -> None:
    count_MN, covariates_NC, y_NP = study
    one = associate(model_of(covariates_NC, y_NP), count_MN)
    order = np.random.default_rng(0).permutation(PEOPLE)
    same(one, associate(model_of(covariates_NC[order], y_NP[order]), np.ascontiguousarray(count_MN[:, order])))
    other = np.where(count_MN < 0, count_MN, 2 - count_MN).astype(np.int8)
    same(one, associate(model_of(covariates_NC, y_NP), other), -1.0)


def test_blocks_do_not_matter(study, monkeypatch: pytest.MonkeyPatch) -> None:
    count_MN, covariates_NC, y_NP = study
    model = model_of(covariates_NC, y_NP)
    one = associate(model, count_MN)
    parts = [associate(model, count_MN[i : i + 7]) for i in range(0, VARIANTS, 7)]
    np.testing.assert_allclose(np.concatenate([p.t_PM for p in parts], 1), one.t_PM, rtol=1e-9)
    monkeypatch.setattr("trainer.gwas.linear.GATHERED", 1)  # one variant with missing calls at a time
    same(one, associate(model, count_MN))


def test_variants_that_cannot_be_fitted_say_why(study) -> None:
    count_MN, covariates_NC, y_NP = study
    rng = np.random.default_rng(1)
    base = rng.integers(0, 3, PEOPLE)
    near = base.astype(float)
    near[0] += 1e-3
    covariates_NC = np.column_stack([near, *rng.integers(0, 3, (2, PEOPLE))])
    few = np.full(PEOPLE, -127)
    few[:5] = [0, 1, 2, 1, 0]
    one_copy = np.zeros(PEOPLE)
    one_copy[0] = -127
    told = np.where(covariates_NC[:, 1] + covariates_NC[:, 2] <= 2, covariates_NC[:, 1] + covariates_NC[:, 2], -127)
    rows = np.stack([np.ones(PEOPLE), one_copy, base, few, count_MN[0], told]).astype(np.int8)
    found = associate(model_of(covariates_NC, y_NP), rows)
    assert found.code_M.tolist() == [CONSTANT, CONSTANT, CORRELATED, TOO_FEW, FITTED, COLLINEAR]
    fitted = found.code_M == FITTED
    for values in (found.beta_PM, found.se_PM, found.t_PM, found.log10_p_PM):
        assert np.isnan(values[:, ~fitted]).all()
        assert np.isfinite(values[:, fitted]).all()


def test_a_covariate_that_is_constant_where_calls_are_known_fits_nothing(study) -> None:
    _, covariates_NC, y_NP = study
    arm = (np.arange(PEOPLE) < 60).astype(float)
    row = np.random.default_rng(2).integers(0, 3, PEOPLE)
    row[60:] = -127
    found = associate(model_of(np.column_stack([covariates_NC, arm]), y_NP), row[None].astype(np.int8))
    assert found.code_M[0] != FITTED
    assert np.isnan(found.beta_PM).all()


def test_under_no_association_p_is_uniform() -> None:
    rng = np.random.default_rng(7)
    count_MN = rng.integers(0, 3, (1500, 200)).astype(np.int8)
    found = associate(model_of(rng.normal(size=(200, 3)), rng.normal(size=(200, 1))), count_MN)
    assert stats.kstest(10 ** found.log10_p_PM[0], "uniform").pvalue > 0.01
    assert abs(genomic_inflation(found.log10_p_PM[0]) - 1) < 0.15


@pytest.mark.parametrize(("t", "df"), [(0.3, 5), (3.0, 50), (40.0, 380), (6831.67, 116), (60.0, 500_000), (500.0, 3)])
def test_p_values_to_any_depth(t: float, df: int) -> None:
    with mpmath.workdps(40):
        x = mpmath.mpf(df) / (df + mpmath.mpf(t) ** 2)
        exact = float(mpmath.log10(mpmath.betainc(mpmath.mpf(df) / 2, mpmath.mpf(1) / 2, 0, x, regularized=True)))
    assert float(log10_p(np.array([-t]), np.array(df))[0]) == pytest.approx(exact, rel=1e-11)


def test_p_as_text_where_a_double_is_zero() -> None:
    values = np.array([-326.1979, -1.0, np.nan, -np.inf, -672.3411, -299.99999999])
    assert as_text(values) == ["6.34016e-327", "0.1", "NA", "0", "4.55932e-673", "1e-300"]


def test_components_have_fixed_signs_and_ranks_become_normal() -> None:
    rng = np.random.default_rng(3)
    x_ND = (rng.normal(size=(50, 4)) * [5, 3, 2, 1]) @ rng.normal(size=(4, 9))
    score_NP, share_P = principal_components(x_ND, 3)
    turned, _ = principal_components(-x_ND, 3)
    again, _ = principal_components(x_ND[::-1], 3)
    np.testing.assert_allclose(again[::-1], score_NP, atol=1e-9)
    np.testing.assert_allclose(np.abs(turned), np.abs(score_NP), atol=1e-9)
    loading_PD = np.linalg.lstsq(score_NP, x_ND - x_ND.mean(0), rcond=None)[0]
    assert (loading_PD[np.arange(3), np.abs(loading_PD).argmax(1)] > 0).all()
    assert share_P.sum() < 1
    y = inverse_normal(np.array([[3.0], [1.0], [1.0], [9.0]]))[:, 0]
    np.testing.assert_allclose(y, stats.norm.ppf((np.array([3, 1.5, 1.5, 4]) - 0.375) / 4.25))


def test_residuals_know_nothing_of_the_covariates() -> None:
    rng = np.random.default_rng(4)
    covariates_NC, y_NP = rng.normal(size=(40, 2)) * 1e6 + 1e8, rng.normal(size=(40, 2))
    basis = basis_of(["a", "b"], covariates_NC, Path("table"))
    left = residuals(basis.q_NC, y_NP)
    assert np.abs(left.sum(0)).max() < 1e-12
    assert max(abs(np.corrcoef(left[:, i], covariates_NC[:, j])[0, 1]) for i in (0, 1) for j in (0, 1)) < 1e-12

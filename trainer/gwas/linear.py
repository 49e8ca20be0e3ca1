"""A linear model of each phenotype on each variant with covariates, complete cases per variant, as `plink2 --glm` computes it.

With Q an orthonormal basis of intercept and covariates, y* = y - QQ'y and g* = g - QQ'g:

    beta = g*'y* / g*'g*    rss = y*'y* - beta^2 g*'g*    se = sqrt(rss / df / g*'g*)    df = n - columns of Q - 1

A person whose call is missing leaves this variant's model and no other's. The products over the people who stay are those over
everybody less those over the few who leave, so the estimates are exact (no mean is imputed) and a block is still one matrix product.

Shape letters: N people, C columns of covariates with the intercept, P phenotypes, M variants, K missing calls of a variant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.gwas.phenotypes import residuals
from trainer.gwas.student import log10_p

FITTED, CONSTANT, CORRELATED, COLLINEAR, TOO_FEW = range(5)
ERRCODES = (".", "CONST_OMITTED_ALLELE", "CORR_TOO_HIGH", "VIF_TOO_HIGH", "TOO_FEW_PEOPLE")
"""Why a variant has no estimate, in plink2's words where it has one."""
MOST_VIF, MOST_CORRELATION = 50.0, 0.999
GATHERED = 1 << 24
"""Bytes of rows of people with missing calls that are held at a time."""


@dataclass(frozen=True)
class Model:
    """People with all covariates and these phenotypes known. basis_NC is orthonormal, y_NP residual; covariates_NC without intercept."""

    basis_NC: np.ndarray
    y_NP: np.ndarray
    covariates_NC: np.ndarray

    @classmethod
    def of(cls, basis_NC: np.ndarray, y_NP: np.ndarray, covariates_NC: np.ndarray) -> Model:
        return cls(basis_NC, residuals(basis_NC, y_NP), covariates_NC)


@dataclass(frozen=True)
class Estimates:
    """Of a block, for the allele that is counted: beta, se, t and log10 P [P, M], people n_M, and why there is none, code_M."""

    beta_PM: np.ndarray
    se_PM: np.ndarray
    t_PM: np.ndarray
    log10_p_PM: np.ndarray
    n_M: np.ndarray
    code_M: np.ndarray


def associate(model: Model, count_MN: np.ndarray) -> Estimates:
    """Fits every phenotype on every variant.

    Args:
        count_MN: copies of an allele, int8; anything below 0 is a missing call.
    """
    lost_MN = count_MN < 0
    lost_M = np.count_nonzero(lost_MN, axis=1)
    g_MN = count_MN.astype(np.float64)
    if lost_M.any():
        g_MN[lost_MN] = 0.0
    C, N = model.basis_NC.shape[1], count_MN.shape[1]
    # The last column sums the copies: whole numbers, exact in whatever order they are added.
    product_MK = g_MN @ np.concatenate([model.basis_NC, model.y_NP, np.ones((N, 1))], 1)
    q_MC, cross_MP, sum_M = product_MK[:, :C], product_MK[:, C:-1], product_MK[:, -1]
    square_M = np.einsum("mn,mn->m", g_MN, g_MN)
    n_M = N - lost_M
    ss_M = square_M - np.einsum("mc,mc->m", q_MC, q_MC)
    yy_MP = np.broadcast_to((model.y_NP**2).sum(0), cross_MP.shape).copy()
    cross_MP = cross_MP.copy()
    code_M = np.where(n_M - C - 1 < 1, TOO_FEW, FITTED)
    # Whole numbers, so this comparison is exact.
    code_M[n_M * square_M == sum_M**2] = CONSTANT
    if len(some := np.flatnonzero((lost_M > 0) & (code_M == FITTED))):
        _leave_out(model, lost_MN[some], some, q_MC, square_M, ss_M, cross_MP, yy_MP)
    with np.errstate(divide="ignore", invalid="ignore"):
        vif_M = (square_M - sum_M**2 / n_M) / ss_M
    for m in np.flatnonzero((code_M == FITTED) & ~((vif_M <= MOST_VIF) & (ss_M > 0))):
        code_M[m] = CORRELATED if _correlation(model, g_MN[m], ~lost_MN[m]) > MOST_CORRELATION else COLLINEAR
    return _estimates(ss_M, cross_MP, yy_MP, n_M, C, code_M)


def _leave_out(
    model: Model,
    lost_MN: np.ndarray,
    some: np.ndarray,
    q_MC: np.ndarray,
    square_M: np.ndarray,
    ss_M: np.ndarray,
    cross_MP: np.ndarray,
    yy_MP: np.ndarray,
) -> None:
    """Changes the products of variants `some` to those of the people whose calls are known.

    Over these, Q'Q is no more the identity, but A = I - Q_K'Q_K with the rows Q_K of those who leave, and Q'y* = -Q_K'y*_K. The normal
    equations have A in place of the identity.
    """
    C, P = q_MC.shape[1], cross_MP.shape[1]
    # A row of zeros at the end fills up the lists of variants with fewer missing calls than the block's most.
    rows_NK = np.concatenate([np.concatenate([model.basis_NC, model.y_NP], 1), np.zeros((1, C + P))])
    count_M = np.count_nonzero(lost_MN, axis=1)
    order = np.argsort(count_M, kind="stable")
    at = 0
    while at < len(order):
        # Sorted by their number, so that lists of one batch are of like length.
        size = max(1, int(GATHERED / (8 * (C + P) * max(1, count_M[order[min(at + 255, len(order) - 1)]]))))
        batch = order[at : at + min(size, 256)]
        at += len(batch)
        left_MKC = rows_NK[_places(lost_MN[batch])]
        inner_MCC = left_MKC.transpose(0, 2, 1) @ left_MKC
        m = some[batch]
        a_MCC = np.eye(C) - inner_MCC[:, :C, :C]
        qy_MCP = -inner_MCC[:, :C, C:]
        right = np.concatenate([q_MC[m][:, :, None], qy_MCP], 2)
        solved = _solved(a_MCC, right)
        ss_M[m] = square_M[m] - np.einsum("mc,mc->m", q_MC[m], solved[:, :, 0])
        cross_MP[m] -= np.einsum("mcp,mc->mp", qy_MCP, solved[:, :, 0])
        lost_MP = np.diagonal(inner_MCC, axis1=1, axis2=2)[:, C:]
        yy_MP[m] -= lost_MP + np.einsum("mcp,mcp->mp", qy_MCP, solved[:, :, 1:])


def _places(lost_MN: np.ndarray) -> np.ndarray:
    """Numbers of the people with missing calls [M, K], filled up with N."""
    # Flat: several times faster than `nonzero` of two axes.
    m, person = np.divmod(np.flatnonzero(lost_MN), lost_MN.shape[1])
    count_M = np.bincount(m, minlength=len(lost_MN))
    starts_M = np.cumsum(count_M) - count_M
    out_MK = np.full((len(lost_MN), int(count_M.max())), lost_MN.shape[1])
    out_MK[m, np.arange(len(m)) - starts_M[m]] = person
    return out_MK


def _solved(a_MCC: np.ndarray, right_MCK: np.ndarray) -> np.ndarray:
    """Solutions; NaN for a variant among whose people a covariate is constant or tells another, so that no model can be fitted."""
    try:
        solved = np.linalg.solve(a_MCC, right_MCK)
    except np.linalg.LinAlgError:
        solved = np.full_like(right_MCK, np.nan)
        for i, (a, right) in enumerate(zip(a_MCC, right_MCK, strict=True)):
            if np.linalg.matrix_rank(a) == len(a):
                solved[i] = np.linalg.solve(a, right)
    # A covariate's variance among those who stay, relative to everybody's, is no smaller than the least eigenvalue of A, which is
    # no smaller than 1 less the Frobenius norm of what leaves: eigenvalues are computed for the few of which that says nothing.
    left_MCC = np.eye(a_MCC.shape[1]) - a_MCC
    doubtful = np.flatnonzero(np.einsum("mcd,mcd->m", left_MCC, left_MCC) > 0.81)
    if len(doubtful):
        solved[doubtful[np.linalg.eigvalsh(a_MCC[doubtful])[:, 0] < 1e-10]] = np.nan
    return solved


def _correlation(model: Model, g_N: np.ndarray, kept_N: np.ndarray) -> float:
    """The largest correlation of a variant with a single covariate."""
    g_N, z_NC = g_N[kept_N], model.covariates_NC[kept_N]
    g_N, z_NC = g_N - g_N.mean(), z_NC - z_NC.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r_C = np.abs(g_N @ z_NC) / np.sqrt((g_N @ g_N) * (z_NC**2).sum(0))
    return float(np.nanmax(r_C, initial=0.0))


def _estimates(
    ss_M: np.ndarray, cross_MP: np.ndarray, yy_MP: np.ndarray, n_M: np.ndarray, columns: int, code_M: np.ndarray
) -> Estimates:
    fitted_M = code_M == FITTED
    ss_M = np.where(fitted_M, ss_M, np.nan)[:, None]
    df_M = np.where(fitted_M, n_M - columns - 1, 1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        beta_MP = cross_MP / ss_M
        rss_MP = np.maximum(yy_MP - beta_MP * cross_MP, 0)
        se_MP = np.sqrt(rss_MP / df_M / ss_M)
        t_MP = beta_MP / se_MP
    return Estimates(beta_MP.T, se_MP.T, t_MP.T, log10_p(t_MP, df_M).T, n_M, code_M)

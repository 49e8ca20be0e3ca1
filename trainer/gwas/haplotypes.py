"""Linkage disequilibrium of two variants from unphased genotypes: r2 of haplotypes at the maximum of their likelihood.

Not the squared correlation of genotypes: only double heterozygotes are ambiguous, and their share of the two phases is estimated (Hill
1974, Heredity 33; the fixed point of the EM algorithm solves a cubic, Gaunt, Rodriguez and Day 2007, BMC Bioinformatics 8).

Shape letters: N people, M variants, R roots.
"""

from __future__ import annotations

import numpy as np


def haplotype_r2(one_N: np.ndarray, many_MN: np.ndarray) -> np.ndarray:
    """r2 [M] of a variant with others over the people whose calls of both are known; NaN where one of both does not vary there.

    Args:
        one_N, many_MN: copies of an allele, int8; anything below 0 is a missing call.
    """
    # float32 counts are exact to 2^24 people.
    dtype = np.float32 if len(one_N) < 1 << 24 else np.float64
    mine_3N = np.stack([one_N == k for k in range(3)]).astype(dtype)
    table_M33 = np.stack([mine_3N @ (many_MN == k).astype(dtype).T for k in range(3)], 1).transpose(2, 0, 1)
    return r2_of_tables(table_M33)


def r2_of_tables(table_M33: np.ndarray) -> np.ndarray:
    """r2 [M] from the number of people by copies of the first (rows) and the second variant's allele (columns)."""
    n = table_M33.astype(np.float64)
    k11, k10 = 2 * n[:, 2, 2] + n[:, 2, 1] + n[:, 1, 2], 2 * n[:, 2, 0] + n[:, 2, 1] + n[:, 1, 0]
    k01, k00 = 2 * n[:, 0, 2] + n[:, 0, 1] + n[:, 1, 2], 2 * n[:, 0, 0] + n[:, 0, 1] + n[:, 1, 0]
    h, total = n[:, 1, 1], 2 * n.sum((1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = (k11 + k10 + h) / total, (k11 + k01 + h) / total
        x_RM = _candidates(total, h, k11, p, q)
        likelihood_RM = _log_likelihood(x_RM, p, q, (k11, k10, k01, k00, h))
        best_M = np.take_along_axis(x_RM, np.argmax(likelihood_RM, 0)[None], 0)[0]
        r2_M = (best_M - p * q) ** 2 / (p * (1 - p) * q * (1 - q))
    varies_M = (p > 0) & (p < 1) & (q > 0) & (q < 1)
    return np.where(varies_M, r2_M, np.nan)


def _candidates(total: np.ndarray, h: np.ndarray, k11: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Frequencies of the haplotype of both alleles [R, M] among which the likeliest is: both ends and the real roots of

    (total x - k11) (x f00 + f10 f01) = h x f00,    f10 = p - x, f01 = q - x, f00 = 1 - p - q + x
    """
    low, high = np.maximum(0, p + q - 1), np.minimum(p, q)
    b, c = 1 - 2 * (p + q), 1 - p - q
    cubic = np.stack([2 * total, total * b - 2 * k11 - h, total * p * q - k11 * b - h * c, -k11 * p * q], -1)
    known = np.isfinite(cubic).all(1) & (total > 0)
    monic = np.where(known[:, None], cubic[:, 1:] / np.where(known, cubic[:, 0], 1)[:, None], 0.0)
    companion = np.zeros((len(p), 3, 3))
    companion[:, 0], companion[:, 1, 0], companion[:, 2, 1] = -monic, 1, 1
    root_MR = np.linalg.eigvals(companion)
    # A double root has an imaginary part of rounding; what is no root is compared by likelihood like any other point.
    x_MR = np.where(np.abs(root_MR.imag) < 1e-5, root_MR.real, low[:, None])
    return np.concatenate([np.clip(x_MR, low[:, None], high[:, None]).T, [low, high]])


def _log_likelihood(
    x_RM: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    counts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    from scipy.special import xlogy

    k11, k10, k01, k00, h = counts
    f10, f01, f00 = (np.maximum(f, 0) for f in (p - x_RM, q - x_RM, 1 - p - q + x_RM))
    unambiguous = xlogy(k11, x_RM) + xlogy(k10, f10) + xlogy(k01, f01) + xlogy(k00, f00)
    return np.nan_to_num(unambiguous + xlogy(h, x_RM * f00 + f10 * f01), nan=-np.inf)

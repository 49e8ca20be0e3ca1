"""Two-sided P values of Student's t as their decimal logarithm, also far below the smallest number of double precision."""

from __future__ import annotations

import numpy as np

SMALL = 1e-280
"""Below this P is taken from its logarithm: scipy's own tail is 0 there, or has lost digits."""
LN10 = float(np.log(10))
ROUNDS = 10_000


def log10_p(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """log10 of P(|T| >= |t|) for T of Student's distribution with `df` degrees of freedom; NaN where t is, -inf for an infinite t."""
    from scipy.special import stdtr

    t, df = np.broadcast_arrays(np.abs(np.asarray(t, np.float64)), np.asarray(df, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stdtr(df, -t)
        out = np.log10(p)
    if (tiny := (p < SMALL) & np.isfinite(t)).any():
        out[tiny] = _ln_tail(t[tiny], df[tiny]) / LN10
    return np.minimum(out, 0.0)


def _ln_tail(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """ln I_x(a, 1/2) with x = df / (df + t^2), a = df / 2: the incomplete beta function by its continued fraction.

    Source: DLMF 8.17.22 (https://dlmf.nist.gov/8.17.E22), summed by the modified method of Lentz.
    """
    from scipy.special import betaln

    a, b, x = df / 2, 0.5, df / (df + t * t)
    c, d = np.ones_like(x), np.zeros_like(x)
    fraction = np.ones_like(x)
    for k in range(1, ROUNDS):
        m = k // 2
        if k % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + step * d)
        c = 1 + step / c
        fraction = fraction * c * d
        if np.all(np.abs(c * d - 1) < 1e-15):
            break
    # ln x by log1p: x is near 1 for many people, where its own rounding would be multiplied by df.
    ln_x, ln_rest = -np.log1p(t * t / df), -np.log1p(df / (t * t))
    return a * ln_x + b * ln_rest - np.log(a) - betaln(a, b) - np.log(fraction)


def as_text(log10_p_M: np.ndarray) -> list[str]:
    """P in six digits, `6.34135e-327` where a double would be 0; 'NA' for NaN."""
    return [_text(float(v)) for v in log10_p_M]


def _text(value: float) -> str:
    if np.isnan(value):
        return "NA"
    if np.isneginf(value):
        return "0"
    if value > -300:
        return f"{10**value:.6g}"
    power = int(np.floor(value))
    digits = round(10 ** (value - power), 5)
    return f"{digits / 10:.6g}e{power + 1}" if digits >= 10 else f"{digits:.6g}e{power}"


def genomic_inflation(log10_p_M: np.ndarray) -> float:
    """The median of chi-square statistics of one degree of freedom with these P values over its expectation; NaN for none.

    Source: Devlin and Roeder 1999, Biometrics 55.
    """
    from scipy.stats import chi2

    known = log10_p_M[~np.isnan(log10_p_M)]
    if not len(known):
        return float("nan")
    return float(chi2.isf(10 ** np.median(known), 1) / chi2.isf(0.5, 1))

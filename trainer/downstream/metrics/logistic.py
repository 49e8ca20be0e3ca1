"""Logistic regression of what happened on one number, in many resamples at once.

Each resample starts from the fit of the whole set. Near it the gradient is a power series in the change of both coefficients, whose sums
over cases are one product of matrices for all resamples; steps of Newton's on the likelihood itself then bring each to its maximum.

Weighted forms as in weighted.py. Shape letters: R resamples, N cases, M cases of one question, G resamples still going, T terms.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np
from numpy.polynomial import Polynomial

from trainer.downstream.metrics.weighted import drawn, first_drawn, ratio

LONGEST_STEP = 2.0  # of Newton's, in units of a standardised x: from further away than that its parabola misleads
STEPS = 200
# Near the maximum the error after a step is about its square: a step below this, in parts, leaves nothing that a number can tell.
CLOSE = 3e-7
# Weights at a time that stay in a core's cache with what is made of them.
BLOCK = 50_000
# Terms of the series, its own steps, and how far from the whole set's fit it is believed (it converges within pi).
DEGREE, SERIES_STEPS, REACH = 6, 4, 1.5
# Of an intercept alone, whose series is short: within SURE what is left out of it is below (SURE / pi)^(DEGREE_ALONE + 1), 5e-15.
DEGREE_ALONE, SURE = 12, 0.25


class LogisticFits:
    """Of logit P = a + b x, by maximum likelihood; b is 1 unless the slope is asked for.

    x is scaled by its largest deviation into z, within -1 and 1, so that a step has a meaning.

    Args:
        case_M: the cases of the question.
        truth_M: whether it happened.
        x_M: the number, such as log odds.
        slope: whether b is fitted.
    """

    def __init__(self, case_M: np.ndarray, truth_M: np.ndarray, x_M: np.ndarray, slope: bool) -> None:
        self.case_M, self.x_M, self.slope = case_M, x_M, slope
        truth_M, rising = np.asarray(truth_M, dtype=bool), np.argsort(x_M, kind="stable")
        self.ends = [(side[::-1], side) for side in (rising[~truth_M[rising]], rising[truth_M[rising]])]
        self.centre = x_M.mean() if len(x_M) else 0.0
        self.scale = np.abs(x_M - self.centre).max(initial=0.0) or 1.0
        z_M = (x_M - self.centre) / self.scale
        self.z_3M = np.stack([np.ones_like(z_M), z_M, z_M**2])
        self.gained_2M = self.z_3M[:2] * truth_M
        self._whole: np.ndarray | None = None
        self.first, self.second = (self.z_3M[:2], self.z_3M) if slope else (self.z_3M[:1], self.z_3M[:1])

    def __call__(self, W_RN: np.ndarray) -> np.ndarray:
        """[R, 2] a and b; NaN where there is no maximum: one class, or of a slope no overlap of both."""
        w_MR = drawn(W_RN, self.case_M).T
        fitted_R2 = np.full((w_MR.shape[1], 2), np.nan)
        able_R = self._able(w_MR)
        if able_R.any():
            fitted_R2[able_R] = self._fitted(w_MR if able_R.all() else w_MR[:, able_R])
        return fitted_R2

    def _able(self, w_MR: np.ndarray) -> np.ndarray:
        """[R] both classes were drawn, and no threshold parts them, ties at the threshold included; of an intercept the former alone."""
        (high_0, low_0), (high_1, low_1) = ([first_drawn(w_MR.T, end) for end in ends] for ends in self.ends)
        both_R = (high_0 >= 0) & (high_1 >= 0)
        if not self.slope or not both_R.any():
            return both_R
        return both_R & (self.x_M[high_0] > self.x_M[low_1]) & (self.x_M[high_1] > self.x_M[low_0])

    def _fitted(self, w_MR: np.ndarray) -> np.ndarray:
        if w_MR.shape[1] == 1 and (w_MR == 1).all():
            return self._original(self._of_whole())
        at_2R = np.repeat(self._start(), w_MR.shape[1], 1)
        if w_MR.shape[1] > 1:
            at_21 = self._of_whole()
            series_2R = self._by_series(w_MR, *at_21[:, 0])
            at_2R = at_21 + series_2R
            far = np.flatnonzero(self.slope | (series_2R[0] == 0) | (np.abs(series_2R[0]) > SURE))
        else:
            far = np.arange(1)
        if len(far):
            at_2R[:, far] = self._arrived(w_MR if len(far) == w_MR.shape[1] else w_MR[:, far], at_2R[:, far])
        return self._original(at_2R)

    def _start(self) -> np.ndarray:
        """[2, 1] where nothing is known: probabilities as they are said."""
        return np.array([[0.0], [1.0 if self.slope else self.scale]])

    def _of_whole(self) -> np.ndarray:
        """[2, 1] of the whole set: its value, and where all resamples start from."""
        if self._whole is None:
            self._whole = self._arrived(np.ones((len(self.x_M), 1)), self._start())
        return self._whole

    def _original(self, at_2R: np.ndarray) -> np.ndarray:
        """[R, 2] a and b of x, from those of z."""
        a_R, b_R = at_2R
        b_R = b_R / self.scale
        return np.stack([a_R - b_R * self.centre, b_R], 1)

    def _arrived(self, w_MG: np.ndarray, at_2R: np.ndarray) -> np.ndarray:
        """[2, R] the maximum, from there, by steps of Newton's: the likelihood is concave, so that short steps arrive."""
        at_2R, going = at_2R.copy(), np.arange(w_MG.shape[1])
        for number in range(STEPS):
            width = max(1, BLOCK // len(w_MG))
            blocks = [slice(i, i + width) for i in range(0, len(going), width)]
            step_2G = np.concatenate([self._step(w_MG[:, b], at_2R[:, going[b]]) for b in blocks], 1)
            longest = LONGEST_STEP / (1 + number / 20)  # ever shorter, so that no two points are taken in turn
            size_G = np.abs(step_2G).max(0)
            at_2R[:, going] += step_2G / np.maximum(size_G / longest, 1)
            far_G = size_G > CLOSE * (np.abs(at_2R[:, going]).max(0) + 1)
            if not far_G.any():
                break
            going, w_MG = going[far_G], w_MG[:, far_G]
        return at_2R

    def _step(self, w_MG: np.ndarray, at_2G: np.ndarray) -> np.ndarray:
        """[2, G] Newton's step for a and b, the latter zero where it is not asked for."""
        p_MG = self.z_3M[:2].T @ -at_2G
        with np.errstate(over="ignore"):  # beyond all numbers: a probability of 0
            np.exp(p_MG, out=p_MG)
        p_MG += 1
        np.divide(1, p_MG, out=p_MG)
        wp_MG = w_MG * p_MG
        gradient_2G = self.gained_2M[: len(self.first)] @ w_MG - self.first @ wp_MG
        np.subtract(1, p_MG, out=p_MG)
        wp_MG *= p_MG
        return self._solved(gradient_2G, self.second @ wp_MG)

    def _solved(self, gradient_2G: np.ndarray, h_3G: np.ndarray) -> np.ndarray:
        if not self.slope:
            return np.stack([ratio(gradient_2G[0], h_3G[0]), np.zeros(gradient_2G.shape[1])])
        (g0, g1), (h0, h1, h2) = gradient_2G, h_3G
        determinant = h0 * h2 - h1 * h1
        da_G, db_G = ratio(h2 * g0 - h1 * g1, determinant), ratio(h0 * g1 - h1 * g0, determinant)
        step_2G = np.stack([da_G, db_G])
        return step_2G if np.isfinite(step_2G).all() else np.nan_to_num(step_2G)

    def _by_series(self, w_MR: np.ndarray, a: float, b: float) -> np.ndarray:
        """[2, R] about how far each maximum is from (a, b), 0 where that is too far for the series.

        With c_k = sigma^(k) / k! at (a, b) and S_kj = sum w c_k z^j, the sums of w P z^i and their derivatives are
        sum_k sum_j C(k, j) da^(k-j) db^j S_k,j+i.
        """
        from scipy.special import expit

        own, degree = (2, DEGREE) if self.slope else (1, DEGREE_ALONE)
        order = [(k, j) for k in range(degree + 1) for j in range(k + 1 if self.slope else 1)]
        rows = [(k, j) for k in range(degree + 1) for j in range(k + own if self.slope else 1)]
        place = {row: i for i, row in enumerate(rows)}
        z_JM = self.z_3M[1] ** np.arange(degree + 2)[:, None]
        c_KM = _derivatives(degree) @ expit(a + b * self.z_3M[1]) ** np.arange(degree + 2)[:, None]
        S = np.stack([c_KM[k] * z_JM[j] for k, j in rows]) @ w_MR
        inner = [(k, j) for k, j in order if k < degree]
        values = [S[[place[k, j + i] for k, j in order]] for i in range(own)]
        slopes = [
            S[[place[k + 1, j + i] for k, j in inner]] * [[k + 1.0] for k, _ in inner] for i in range(2 * own - 1)
        ]
        gained_2R, at_2R = self.gained_2M[:own] @ w_MR, np.zeros((2, w_MR.shape[1]))
        for _ in range(SERIES_STEPS):
            term_TR = _terms(order, degree, *at_2R)
            gradient = gained_2R - np.stack([np.einsum("tr,tr->r", term_TR, v) for v in values])
            h = np.stack([np.einsum("tr,tr->r", term_TR[: len(inner)], s) for s in slopes])
            at_2R = np.clip(at_2R + self._solved(gradient, h), -2, 2)
        return np.where(np.abs(at_2R).max(0) < REACH, at_2R, 0.0)


@lru_cache
def _derivatives(degree: int) -> np.ndarray:
    """[k, power] sigma^(k) / k! as polynomials in p = sigma, whose derivative is p - p^2."""
    of, found = Polynomial([0.0, 1.0]), np.zeros((degree + 1, degree + 2))
    for k in range(degree + 1):
        found[k, : len(of.coef)] = of.coef
        of = of.deriv() * Polynomial([0.0, 1.0, -1.0]) / (k + 1)
    return found


def _terms(order: list[tuple[int, int]], degree: int, a_R: np.ndarray, b_R: np.ndarray) -> np.ndarray:
    """[T, R] C(k, j) a^(k-j) b^j."""
    a, b = ([np.ones_like(x_R), x_R] for x_R in (a_R, b_R))
    for _ in range(degree - 1):
        a.append(a[-1] * a_R)
        b.append(b[-1] * b_R)
    return np.stack([comb(k, j) * a[k - j] * b[j] for k, j in order])

"""Metrics of many resamples at once: a resample is a row of weights, how often each case was drawn.

Each function here prepares what does not depend on the weights (sorting, errors, confusion) and returns W_RN -> R values, equal to
the metric of a set in which case n stands W_RN[r, n] times. NaN where that set has no value. Cases have known targets
(`Predictions.known`); a target that is unknown in one column counts for the others.

`resampling.weights` puts the draws of a case beside each other in memory, W_RN.T is a plain array: forms go from case to case and do all
draws of one at once. Sums of weights are whole numbers and exact in any order.

Shape letters: R resamples, N cases, K classes, labels or targets, M cases known in one column, G groups of equal values, P patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.shared import narrow, of_same

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Weighted = Callable[[np.ndarray], np.ndarray]
# Cases at an end that are looked at first: that none of so many was drawn has a probability of exp(-64).
LOOK = 64


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is zero."""
    there = np.asarray(b) != 0
    if there.all():  # several times as fast as a division with a mask
        return np.divide(a, b, dtype=np.float64)
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=there, dtype=np.float64)


def defined_mean(values_KR: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is not NaN; NaN where nothing is."""
    known_KR = ~np.isnan(values_KR)
    return ratio(np.where(known_KR, values_KR, 0).sum(0), known_KR.sum(0))


def columns(p: Predictions) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(case_M, truth_M, score_M) of each yes-or-no question that the predictions answer.

    binary: the one; multiclass: each class against the rest; multilabel: each label, where it is known; ordinal: at least grade k,
    for k = 1..K-1; segmentation: any true pixel of a structure, scored by the pixels predicted.
    """
    every = np.arange(len(p))
    if p.kind == "binary":
        return [(every, p.target == 1, p.score)]
    if p.kind == "multiclass":
        return [(every, p.target == k, p.score[:, k]) for k in range(p.score.shape[1])]
    if p.kind == "ordinal":
        return [(every, p.target >= k, p.score[:, k]) for k in range(1, p.score.shape[1])]
    if p.kind == "segmentation":
        return [(every, s.target > 0, s.score[:, 1]) for s in p.structures()]
    assert p.kind == "multilabel"
    known_NK = ~np.isnan(p.target)
    cases = [np.flatnonzero(known_NK[:, k]) for k in range(p.target.shape[1])]
    return [(n, p.target[n, k] == 1, p.score[n, k]) for k, n in enumerate(cases)]


def pooled(p: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All of `columns` as one question."""
    case, truth, score = zip(*columns(p), strict=True)
    return np.concatenate(case), np.concatenate(truth), np.concatenate(score)


def drawn(W_RN: np.ndarray, case_M: np.ndarray) -> np.ndarray:
    """[R, M] how often these cases were drawn."""
    whole = len(case_M) == W_RN.shape[1] and bool((case_M == np.arange(len(case_M))).all())
    return W_RN if whole else W_RN.T[case_M].T


def sum_of(row_C: np.ndarray, case_C: np.ndarray, rows: int, share_C: np.ndarray | None = None) -> Weighted:
    """W_RN -> [R, rows]: in each row the sum of the weights of its cases; pair c says that case_C[c] counts for row_C[c], all or a share.

    In the weights' own precision (`shared.narrow`).
    """
    N, share_C = int(case_C.max(initial=-1)) + 1, np.ones(len(case_C)) if share_C is None else share_C
    made: dict[np.dtype, csr_array] = {}

    def matrix(dtype: np.dtype) -> csr_array:
        from scipy.sparse import csr_array

        if dtype not in made:
            order = np.argsort(row_C, kind="stable")
            ends = np.concatenate(([0], np.cumsum(np.bincount(row_C, minlength=rows))))
            made[dtype] = csr_array((share_C[order].astype(dtype), case_C[order], ends), shape=(rows, N))
        return made[dtype]

    def of(W_RN: np.ndarray) -> np.ndarray:
        if not len(case_C):
            return np.zeros((rows, len(W_RN)), W_RN.dtype).T
        if len(W_RN) == 1:  # the whole set: no matrix is worth making
            return np.bincount(row_C, W_RN[0, case_C] * share_C, minlength=rows)[None]
        return (matrix(W_RN.dtype) @ W_RN.T[:N]).T

    return of


def running(x_RG: np.ndarray) -> np.ndarray:
    """Sums along the second axis, in place, whose steps are rows of W_RN.T: numpy's own goes draw by draw."""
    if len(x_RG) == 1:
        return np.cumsum(x_RG, axis=1, out=x_RG)
    for before_R, here_R in pairwise(x_RG.T):
        here_R += before_R
    return x_RG


def first_drawn(W_RN: np.ndarray, case_K: np.ndarray) -> np.ndarray:
    """[R] which of these cases, in this order, is the first that was drawn; -1 where none was."""
    first_R = np.full(len(W_RN), -1)
    for part_K in (case_K[:LOOK], case_K[LOOK:]):
        missing = np.flatnonzero(first_R < 0)
        if len(missing) and len(part_K):
            there_KR = (W_RN.T[part_K] if len(missing) == len(W_RN) else W_RN.T[np.ix_(part_K, missing)]) > 0
            first_R[missing] = np.where(there_KR.any(0), part_K[there_KR.argmax(0)], -1)
    return first_R


def constant(W_RN: np.ndarray, case_M: np.ndarray, x_M: np.ndarray) -> np.ndarray:
    """[R] whether all that was drawn is one value: exactly, since a variance of rounding errors would pass for one."""
    order = np.argsort(x_M, kind="stable")
    x_N = np.zeros(W_RN.shape[1] + 1)  # the last one stands for nothing drawn
    x_N[case_M] = x_M
    return x_N[first_drawn(W_RN, case_M[order])] >= x_N[first_drawn(W_RN, case_M[order[::-1]])]


# ------------------------------------------------------------------------------------------------------------------- ranking


def groups(x_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, starts): the sorting of x and where each group of equal values begins in it."""
    order = np.argsort(x_M, kind="stable")
    sorted_ = x_M[order]
    return order, np.flatnonzero(np.concatenate(([True], sorted_[1:] != sorted_[:-1])))


Both = Callable[..., tuple[np.ndarray, np.ndarray]]


def steps(case_M: np.ndarray, truth_M: np.ndarray, score_M: np.ndarray, area: bool, apart: bool = False) -> Both:
    """W_RN -> (pos_RS, neg_RS1): the positives at each step of the score, the lowest first, and the negatives from the one before on.

    A step is a score that positives have; for an area neighbouring ones without a negative between are one. Negatives with the score of
    a step count for it, for an area one half for it and one half for the next. The last column is what lies beyond all steps.
    Of `apart` positives and negatives have weights of their own: W_RN, against_RN -> the same.
    """
    order, starts = groups(score_M)
    case_M, truth_M = case_M[order], np.asarray(truth_M[order], dtype=bool)
    size_G = np.diff(np.append(starts, len(case_M)))
    positive_G = np.add.reduceat(truth_M, starts, dtype=np.int64)
    begins_G = positive_G > 0
    if area:
        alone_G = positive_G == size_G
        begins_G[1:] &= ~(alone_G[1:] & alone_G[:-1])
    S = int(begins_G.sum())
    # Of a score with positives the step it is in, of others the next one.
    next_G: np.ndarray = np.cumsum(begins_G) - (positive_G > 0)
    next_M = np.repeat(next_G, size_G)
    tied_M = np.repeat(positive_G > 0, size_G) & ~truth_M & area
    row_C = np.concatenate([np.where(truth_M, next_M, S + next_M), S + 1 + next_M[tied_M]])
    case_C = np.concatenate([case_M, case_M[tied_M]])
    share_C = np.concatenate([np.where(tied_M, 0.5, 1.0), np.full(int(tied_M.sum()), 0.5)])
    return _apart(row_C, case_C, S, share_C) if apart else _together(sum_of(row_C, case_C, 2 * S + 1, share_C), S)


def _together(both: Weighted, S: int) -> Both:
    def of(W_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both_RS = both(W_RN)
        return both_RS[:, :S], both_RS[:, S:]

    return of


def _apart(row_C: np.ndarray, case_C: np.ndarray, S: int, share_C: np.ndarray) -> Both:
    yes_C = row_C < S
    pos = sum_of(row_C[yes_C], case_C[yes_C], S)
    neg = sum_of(row_C[~yes_C] - S, case_C[~yes_C], S + 1, share_C[~yes_C])
    return lambda W_RN, against_RN: (pos(W_RN), neg(against_RN))


def roc_auc(case_M: np.ndarray, truth_M: np.ndarray, score_M: np.ndarray) -> Weighted:
    """Mann-Whitney U over the pairs of a positive and a negative, ties one half (Hanley and McNeil 1982)."""
    if not len(case_M):
        return nothing
    both = steps(case_M, truth_M, score_M, area=True)
    times = int(np.bincount(case_M).max())
    return lambda W_RN: area(*both(narrow(W_RN, times)))


def area(pos_RS: np.ndarray, neg_RS1: np.ndarray) -> np.ndarray:
    """[R] the area under the ROC curve, from the positives of each step and the negatives below it (`steps`, of an area)."""
    below_RS1 = running(neg_RS1).astype(pos_RS.dtype, copy=False)
    return ratio(np.einsum("rs,rs->r", pos_RS, below_RS1[:, :-1]), pos_RS.sum(1) * below_RS1[:, -1])


def average_precision(case_M: np.ndarray, truth_M: np.ndarray, score_M: np.ndarray) -> Weighted:
    """Precision at each distinct score, weighted by the recall gained there; no interpolation."""
    if not len(case_M):
        return nothing
    both = steps(case_M, truth_M, -score_M, area=False)

    def of(W_RN: np.ndarray) -> np.ndarray:
        gained_RS, neg_RS1 = both(narrow(W_RN))
        to_RS = running(gained_RS.copy(order="K"))
        seen_RS = running(neg_RS1[:, :-1]) + to_RS
        # Nothing seen: nothing gained either.
        precision_RS = np.divide(to_RS, np.maximum(seen_RS, 1), dtype=np.float64)
        recall_R = np.einsum("rs,rs->r", precision_RS, gained_RS.astype(np.float64))
        return ratio(recall_R, to_RS[:, -1] if to_RS.shape[1] else np.zeros(len(W_RN)))

    return of


def nothing(W_RN: np.ndarray) -> np.ndarray:
    return np.full(len(W_RN), np.nan)


def macro(parts: Sequence[Weighted]) -> Weighted:
    """The mean of those parts that have a value."""
    return lambda W_RN: defined_mean(np.stack([part(W_RN) for part in parts]))


# ----------------------------------------------------------------------------------------------------------------- decisions


def confusion(p: Predictions, of_RKK: Callable[[np.ndarray], np.ndarray]) -> Weighted:
    """A function of the confusion matrices [R, true, predicted]."""
    return lambda W_RN: of_RKK(_confusion(p, W_RN))


@of_same(8)
def _confusion(p: Predictions, W_RN: np.ndarray) -> np.ndarray:
    K = 2 if p.kind == "binary" else p.score.shape[1]
    cells = sum_of(p.truth() * K + p.decided(), np.arange(len(p)), K * K)
    return cells(narrow(W_RN)).astype(np.float64).reshape(-1, K, K)


def accuracy(C_RKK: np.ndarray) -> np.ndarray:
    """The share on the diagonal."""
    return ratio(np.trace(C_RKK, axis1=1, axis2=2), C_RKK.sum((1, 2)))


def balanced_accuracy(C_RKK: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that have a true case."""
    return defined_mean(ratio(np.diagonal(C_RKK, axis1=1, axis2=2), C_RKK.sum(2)).T)


def f1_macro(C_RKK: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that are true or predicted of some case."""
    return defined_mean(ratio(2 * np.diagonal(C_RKK, axis1=1, axis2=2), C_RKK.sum(1) + C_RKK.sum(2)).T)


def kappa_quadratic(C_RKK: np.ndarray) -> np.ndarray:
    """1 - observed / expected squared distance of the grades (Cohen 1968)."""
    grade_K = np.arange(C_RKK.shape[1], dtype=np.float64)
    distance_KK = (grade_K[:, None] - grade_K) ** 2
    observed_R = (C_RKK * distance_KK).sum((1, 2))
    expected_R = np.einsum("ri,ij,rj->r", C_RKK.sum(2), distance_KK, C_RKK.sum(1))
    return 1 - ratio(observed_R * C_RKK.sum((1, 2)), expected_R)


def f1_labels(p: Predictions) -> Weighted:
    """Mean over labels of the F1 of the positive class; labels that are neither true nor predicted of a known case are left out."""

    def one(case_M: np.ndarray, truth_M: np.ndarray, score_M: np.ndarray) -> Weighted:
        yes_M = score_M > 0.5
        right_M, either_M = 2.0 * (truth_M & yes_M), truth_M.astype(np.float64) + yes_M
        return lambda W_RN: ratio(*(drawn(W_RN, case_M) @ x_M for x_M in (right_M, either_M)))

    return macro([one(*c) for c in columns(p)])


# ------------------------------------------------------------------------------------------------------------------- numbers


def _targets(p: Predictions) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(case_M, target_M, score_M) of each target, where it is known."""
    cases = [np.flatnonzero(~np.isnan(y_N)) for y_N in p.targets.T]
    return [(n, p.targets[n, k], p.scores[n, k]) for k, n in enumerate(cases)]


def mse(p: Predictions) -> Weighted:
    """Sum over targets of the mean squared error in units of `scale_K`; NaN if a target is not known at all."""
    assert p.scale_K is not None, (
        "the metric mse needs Predictions.scale_K, the targets' deviations over the training split"
    )
    parts = [mean_of(n, ((y - s) / c) ** 2) for (n, y, s), c in zip(_targets(p), p.scale_K, strict=True)]
    return lambda W_RN: np.sum([part(W_RN) for part in parts], axis=0)


def mae(p: Predictions) -> Weighted:
    """Mean over targets of the mean absolute error."""
    return macro([mean_of(n, np.abs(y - s)) for n, y, s in _targets(p)])


def mean_of(case_M: np.ndarray, x_M: np.ndarray) -> Weighted:
    """The mean of a number that these cases have."""

    def of(W_RN: np.ndarray) -> np.ndarray:
        w_RM = drawn(W_RN, case_M)
        return ratio(w_RM @ x_M, w_RM @ np.ones(len(x_M)))

    return of


def r2(p: Predictions) -> Weighted:
    """Mean over targets of 1 - squared error / squared deviation from the mean; a constant target has no value."""

    def one(case_M: np.ndarray, y_M: np.ndarray, s_M: np.ndarray) -> Weighted:
        def of(W_RN: np.ndarray) -> np.ndarray:
            w_RM = drawn(W_RN, case_M)
            mean_R = ratio(w_RM @ y_M, w_RM.sum(1))
            around_R = (w_RM * (y_M - mean_R[:, None]) ** 2).sum(1)
            return np.where(constant(W_RN, case_M, y_M), np.nan, 1 - ratio(w_RM @ (y_M - s_M) ** 2, around_R))

        return of if len(case_M) else nothing

    return macro([one(*t) for t in _targets(p)])


def correlation(p: Predictions, ranks: bool) -> Weighted:
    """Mean over targets of Pearson's correlation, of the mid-ranks within each resample where `ranks` (Spearman)."""

    def one(case_M: np.ndarray, y_M: np.ndarray, s_M: np.ndarray) -> Weighted:
        a, b = (_midranks(v) if ranks else _as_is(v - v.mean()) for v in (y_M, s_M)) if len(case_M) else (None, None)

        def of(W_RN: np.ndarray) -> np.ndarray:
            w_RM = drawn(W_RN, case_M)
            value_R = _pearson(w_RM, a(w_RM), b(w_RM))  # type: ignore[misc]
            return np.where(constant(W_RN, case_M, y_M) | constant(W_RN, case_M, s_M), np.nan, value_R)

        return of if len(case_M) else nothing

    return macro([one(*t) for t in _targets(p)])


def _as_is(x_M: np.ndarray) -> Weighted:
    return lambda w_RM: np.broadcast_to(x_M[:, None], w_RM.shape[::-1]).T


def _midranks(x_M: np.ndarray) -> Weighted:
    order, starts = groups(x_M)
    group_M = np.empty(len(x_M), dtype=np.int64)
    group_M[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(x_M))))

    at_score = sum_of(group_M, np.arange(len(x_M)), len(starts))

    def of(w_RM: np.ndarray) -> np.ndarray:
        w_RG = at_score(w_RM)
        return drawn(running(w_RG.copy(order="K")) - (w_RG - 1) / 2, group_M)

    return of


def _pearson(w_RM: np.ndarray, a_RM: np.ndarray, b_RM: np.ndarray) -> np.ndarray:
    n_R = w_RM.sum(1)
    da_RM, db_RM = (x - ratio((w_RM * x).sum(1), n_R)[:, None] for x in (a_RM, b_RM))
    both_R = (w_RM * da_RM * db_RM).sum(1)
    deviation_R = np.sqrt((w_RM * da_RM**2).sum(1)) * np.sqrt((w_RM * db_RM**2).sum(1))
    return np.clip(ratio(both_R, deviation_R), -1, 1)

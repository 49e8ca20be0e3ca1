"""Survival under censoring: Harrell's C, Uno's C and the time-dependent area under the curve.

The latter two by inverse probabilities of censoring.
Uno's C: Uno and others, Statistics in Medicine 30, 2011. Area at a time: cumulative cases, dynamic controls, weights as in Hung and
Chiang, Canadian Journal of Statistics 38, 2010; their mean weighted by the events that each time adds, Lambert and Chevret, Statistical
Methods in Medical Research 25, 2016. Censoring is estimated on the test cases themselves (Kaplan and Meier with the events taken
for censored; of equal times events come first), in every resample anew.

Weighted forms as in weighted.py. Shape letters: R resamples, N cases, E cases with an event, G different times, H horizons.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np

from trainer.downstream.metrics import weighted
from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.shared import narrow, of_same
from trainer.downstream.metrics.weighted import Weighted, ratio

# Rows of the matrix of pairs made at a time: 64 x 20,000 pairs are 5 MB. So many pairs, 4 MB, are kept as a whole.
PAIR_ROWS, PAIRS_KEPT = 64, 2**20


class Times:
    """The different times of a set of cases, and what is estimated at them from how often each case was drawn."""

    def __init__(self, target_N2: np.ndarray) -> None:
        self.time_N, self.event_N = target_N2[:, 0], target_N2[:, 1] == 1
        self.time_G, self.of_N = np.unique(self.time_N, return_inverse=True)
        every, G = np.arange(len(self.of_N)), len(self.time_G)
        # Of equal times events come first.
        self.rising_N = np.lexsort((~self.event_N, self.time_N))
        self.of_E = self.rising_N[self.event_N[self.rising_N]]
        self.events = weighted.sum_of(self.of_N[self.event_N], every[self.event_N], G)
        self.all = weighted.sum_of(self.of_N, every, G)

    def before(self, horizon: float) -> int:
        """How many of the times are not after the horizon."""
        return int(np.searchsorted(self.time_G, horizon, side="right"))


def times_of(p: Predictions) -> Times:
    """One for all predictions of the same cases, whatever their scores: censoring is estimated once for all seeds and systems."""
    return _times(np.ascontiguousarray(p.target).tobytes())


@lru_cache(maxsize=8)
def _times(target_N2: bytes) -> Times:
    return Times(np.frombuffer(target_N2).reshape(-1, 2))


@of_same(4)
def _drawn(times: Times, W_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[R, G] events, censored, and how many lie after each time, those of equal times counted that are no events."""
    event_RG, all_RG = times.events(narrow(W_RN)), times.all(narrow(W_RN))
    risk_RG = weighted.running(all_RG[:, ::-1].copy(order="K"))[:, ::-1]
    return event_RG, all_RG - event_RG, risk_RG - event_RG


@of_same(4)
def surviving(times: Times, W_RN: np.ndarray) -> np.ndarray:
    """[R, G] Kaplan and Meier's estimate of survival beyond each time."""
    event_RG, _, later_RG = _drawn(times, W_RN)
    return _kept(event_RG, later_RG + event_RG)


@of_same(4)
def uncensored(times: Times, W_RN: np.ndarray) -> np.ndarray:
    """[R, G] the same of not yet being censored beyond each time."""
    _, censored_RG, later_RG = _drawn(times, W_RN)
    return _kept(censored_RG, later_RG)


def _kept(left_RG: np.ndarray, risk_RG: np.ndarray) -> np.ndarray:
    """[R, G] the product, up to each time, of the shares that did not leave then; nobody leaves where nobody is at risk."""
    share_GR = 1 - np.divide(left_RG.T, np.maximum(risk_RG.T, 1), dtype=np.float64)
    if share_GR.shape[1] == 1:
        return np.cumprod(share_GR, axis=0, out=share_GR).T
    for before_R, here_R in pairwise(share_GR):
        here_R *= before_R
    return share_GR.T


@of_same(2)
def _inverse(times: Times, W_RN: np.ndarray) -> np.ndarray:
    """[E, R] 1 / P(not censored) at each event's time; NaN where that is 0 and the case was drawn, 0 where it was not."""
    g_ER = uncensored(times, W_RN).T[times.of_N[times.of_E]]
    return np.where(W_RN.T[times.of_E] > 0, ratio(np.ones_like(g_ER), g_ER), 0.0)


class Horizons:
    """Times at which survival is looked at, of a set of cases: one for all predictions of them, as `Times`."""

    def __init__(self, times: Times, at_H: np.ndarray) -> None:
        self.times, self.at_H = times, at_H
        self.before_H = [times.before(h) for h in at_H]


def horizons_of(p: Predictions) -> Horizons:
    assert p.horizons_H is not None, (
        f"metrics of {p.kind} over time need Predictions.horizons_H, times of training events"
    )
    return _horizons(times_of(p), p.horizons_H.tobytes())


@lru_cache(maxsize=8)
def _horizons(times: Times, at_H: bytes) -> Horizons:
    return Horizons(times, np.frombuffer(at_H))


# -------------------------------------------------------------------------------------------------------------- concordance


class Pairs:
    """Which cases lie after each event, and whether their scores are in the right order: 1, of equal scores one half."""

    def __init__(self, times: Times, score_N: np.ndarray) -> None:
        self.times, self.score_N = times, score_N
        few = len(times.of_E) * len(score_N) <= PAIRS_KEPT
        self._whole = list(self._blocks()) if few else None

    def right(self) -> Iterator[tuple[int, np.ndarray]]:
        """Blocks of rows of [E, N], float32, both in the order of time, each from its first column that is not 0 all down."""
        return iter(self._whole) if self._whole is not None else self._blocks()

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        rising_N = self.times.rising_N
        time_N, event_N, score_N = (x[rising_N] for x in (self.times.time_N, self.times.event_N, self.score_N))
        of_E = np.flatnonzero(event_N)
        for start in range(0, len(of_E), PAIR_ROWS):
            i = of_E[start : start + PAIR_ROWS]
            time_J, event_J, score_J = (x[i[0] :] for x in (time_N, event_N, score_N))
            later_IJ = (time_J > time_N[i, None]) | ((time_J == time_N[i, None]) & ~event_J)
            higher_IJ = (score_J < score_N[i, None]) + 0.5 * (score_J == score_N[i, None])
            yield int(i[0]), (later_IJ * higher_IJ).astype(np.float32)


@lru_cache(maxsize=8)
def _pairs(p: Predictions) -> Pairs:
    return Pairs(times_of(p), p.score)


@of_same(2)
def _by_time(times: Times, W_RN: np.ndarray) -> np.ndarray:
    """[N, R] float32, in the order of time."""
    return W_RN.T.astype(np.float32)[times.rising_N]


@of_same(4)
def _right(pairs: Pairs, W_RN: np.ndarray) -> np.ndarray:
    """[E, R] how many of the pairs of each event are in the right order; whole or half, far below 2 ** 23: exact in float32."""
    weight_NR = _by_time(pairs.times, W_RN)
    found = [right_IJ @ weight_NR[first:] for first, right_IJ in pairs.right()]
    return np.concatenate(found) if found else np.zeros((0, len(W_RN)), np.float32)


def c_index(p: Predictions) -> Weighted:
    """Harrell's C (1982): of the comparable pairs, the share whose earlier event has the higher risk; equal risks count one half.

    A pair is comparable when the earlier time is an event, or when of two equal times just one is.
    """
    times, pairs = times_of(p), _pairs(p)

    def of(W_RN: np.ndarray) -> np.ndarray:
        w_ER, pairs_R = _comparable(times, W_RN)
        return ratio(_sum(w_ER, _right(pairs, W_RN)), pairs_R)

    return of


@of_same(2)
def _comparable(times: Times, W_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([E, R] how often each event was drawn, [R] how many comparable pairs there are)."""
    w_ER = narrow(W_RN).T[times.of_E]
    return w_ER, np.einsum("ir,ir->r", w_ER, _drawn(times, W_RN)[2].T[times.of_N[times.of_E]])


def _sum(w_ER: np.ndarray, right_ER: np.ndarray) -> np.ndarray:
    """[R] the pairs in the right order, each event's weighed by w."""
    right_R = np.zeros(w_ER.shape[1])
    for start in range(0, len(w_ER), PAIR_ROWS):
        rows = slice(start, start + PAIR_ROWS)
        right_R += np.einsum("ir,ir->r", w_ER[rows], right_ER[rows])
    return right_R


def c_uno(p: Predictions) -> Weighted:
    """Harrell's pairs whose earlier time is below the last horizon, each by the squared inverse probability of its censoring."""
    horizons, pairs = horizons_of(p), _pairs(p)

    def of(W_RN: np.ndarray) -> np.ndarray:
        among, w_IR, pairs_R = _weighed_pairs(horizons, W_RN)
        return ratio(_sum(w_IR, _right(pairs, W_RN)[among]), pairs_R)

    return of


@of_same(2)
def _weighed_pairs(horizons: Horizons, W_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([I] which events are before the last horizon, [I, R] what each weighs, [R] what their comparable pairs weigh together)."""
    times = horizons.times
    among = np.flatnonzero(times.time_N[times.of_E] < horizons.at_H[-1])
    first = times.of_E[among]
    w_IR = W_RN.T[first] * _inverse(times, W_RN)[among] ** 2
    later_IR = _drawn(times, W_RN)[2].T[times.of_N[first]].astype(np.float64)
    return among, w_IR, np.einsum("ir,ir->r", w_IR, later_IR)


def time_auc(p: Predictions) -> Weighted:
    """The mean over horizons of the area under the curve of an event by then against none."""
    horizons = horizons_of(p)
    forms = [_questions(horizons.times, p.score, horizon) for horizon in horizons.at_H]

    def of(W_RN: np.ndarray) -> np.ndarray:
        weighed_RN, adds_RH = _weighed_cases(horizons, W_RN)
        auc_HR = [weighted.area(*at(weighed_RN, narrow(W_RN))) if at else weighted.nothing(W_RN) for at in forms]
        return _mean(np.stack(auc_HR, 1), adds_RH)

    return of


@of_same(2)
def _weighed_cases(horizons: Horizons, W_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([R, N] what events up to the last horizon weigh, by their censoring, 0 for other cases; [R, H] the share that each horizon adds)."""
    times = horizons.times
    among = np.flatnonzero(times.time_N[times.of_E] <= horizons.at_H[-1])
    weighed_NR = np.zeros(W_RN.T.shape)
    weighed_NR[times.of_E[among]] = W_RN.T[times.of_E[among]] * _inverse(times, W_RN)[among]
    survival_GR = np.concatenate([np.ones((1, len(W_RN))), surviving(times, W_RN).T])
    return weighed_NR.T, -np.diff(survival_GR[[0, *horizons.before_H]].T, axis=1)


def _questions(times: Times, score_N: np.ndarray, horizon: float) -> weighted.Both | None:
    """Steps of the score over those with an event by then and those without one yet; None where there are neither."""
    by_then_N = times.event_N & (times.time_N <= horizon)
    case_M = np.flatnonzero(by_then_N | (times.time_N > horizon))
    if not len(case_M):
        return None
    return weighted.steps(case_M, by_then_N[case_M], score_N[case_M], area=True, apart=True)


def _mean(auc_RH: np.ndarray, weight_RH: np.ndarray) -> np.ndarray:
    """Weighted over the horizons that have a value; one horizon needs no weight."""
    if auc_RH.shape[1] == 1:
        return auc_RH[:, 0]
    weight_RH = np.where(np.isnan(auc_RH), 0.0, weight_RH)
    return ratio((np.nan_to_num(auc_RH) * weight_RH).sum(1), weight_RH.sum(1))


def metrics() -> list[Metric]:
    """Those of survival beside Harrell's C."""
    horizons = "horizons: the nine deciles of the times of the training split's events"
    censoring = "inverse probabilities of censoring by Kaplan and Meier on the test cases"
    return [
        own(
            "c_uno", ("survival",),
            f"Uno's C (2011): Harrell's pairs whose earlier time is below the last horizon, each by the square of {censoring}; {horizons}",
            c_uno,
        ),
        own(
            "time_auc", ("survival",),
            "area under the ROC curve of an event up to a horizon against none by then (cumulative, dynamic), cases by "
            f"{censoring}; mean over horizons by the share of events that each adds (Lambert and Chevret 2016); {horizons}",
            time_auc,
        ),
    ]  # fmt: skip

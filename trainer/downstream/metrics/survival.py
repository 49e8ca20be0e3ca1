"""Survival under censoring: Uno's C and the time-dependent area under the curve, by inverse probabilities of censoring.

Uno's C: Uno and others, Statistics in Medicine 30, 2011. Area at a time: cumulative cases, dynamic controls, weights as in Hung and
Chiang, Canadian Journal of Statistics 38, 2010; their mean weighted by the events that each time adds, Lambert and Chevret, Statistical
Methods in Medical Research 25, 2016. Censoring is estimated on the test cases themselves (Kaplan and Meier with the events taken
for censored; of equal times events come first), in every resample anew.

Weighted forms as in weighted.py. Shape letters: R resamples, N cases, G different times, H horizons.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from trainer.downstream.metrics import weighted
from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.weighted import Weighted, ratio


class Times:
    """The different times of a set of cases, and what is estimated at them from how often each case was drawn."""

    def __init__(self, p: Predictions) -> None:
        self.time_N, self.event_N = p.target[:, 0], p.target[:, 1] == 1
        self.time_G, self.of_N = np.unique(self.time_N, return_inverse=True)
        every, G = np.arange(len(self.of_N)), len(self.time_G)
        self._events = weighted.sum_of(self.of_N[self.event_N], every[self.event_N], G)
        self._all = weighted.sum_of(self.of_N, every, G)

    def _drawn(self, W_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[R, G] events, censored and at risk."""
        event_RG, all_RG = self._events(W_RN), self._all(W_RN)
        risk_RG = weighted.running(all_RG[:, ::-1].copy(order="K"))[:, ::-1]
        return event_RG, all_RG - event_RG, risk_RG

    def surviving(self, W_RN: np.ndarray) -> np.ndarray:
        """[R, G] Kaplan and Meier's estimate of survival beyond each time."""
        event_RG, _, risk_RG = self._drawn(W_RN)
        return _kept(event_RG, risk_RG)

    def uncensored(self, W_RN: np.ndarray) -> np.ndarray:
        """[R, G] the same of not yet being censored beyond each time."""
        event_RG, censored_RG, risk_RG = self._drawn(W_RN)
        return _kept(censored_RG, risk_RG - event_RG)

    def before(self, horizon: float) -> int:
        """How many of the times are not after the horizon."""
        return int(np.searchsorted(self.time_G, horizon, side="right"))


def _kept(left_RG: np.ndarray, risk_RG: np.ndarray) -> np.ndarray:
    """[R, G] the product, up to each time, of the shares that did not leave then; nobody leaves where nobody is at risk."""
    share_GR = 1 - left_RG.T / np.maximum(risk_RG.T, 1)
    for before_R, here_R in pairwise(share_GR):
        here_R *= before_R
    return share_GR.T


def _inverse(W_RN: np.ndarray, times: Times, cases: np.ndarray) -> np.ndarray:
    """[R, cases] 1 / P(not censored) at the times of these cases; NaN where that is 0 and the case was drawn, 0 where it was not."""
    g_NR = times.uncensored(W_RN).T[times.of_N[cases]]
    return np.where(W_RN.T[cases] > 0, ratio(np.ones_like(g_NR), g_NR), 0.0).T


def c_uno(p: Predictions) -> Weighted:
    """Harrell's pairs whose earlier time is below the last horizon, each by the squared inverse probability of its censoring."""
    times = Times(p)
    first = np.flatnonzero(times.event_N & (times.time_N < _horizons(p)[-1]))

    def of(W_RN: np.ndarray) -> np.ndarray:
        return weighted.concordance(p, first, W_RN, _inverse(W_RN, times, first) ** 2)

    return of


def time_auc(p: Predictions) -> Weighted:
    """The mean over horizons of the area under the curve of an event by then against none."""
    times, horizons = Times(p), _horizons(p)
    cases = np.flatnonzero(times.event_N & (times.time_N <= horizons[-1]))
    cases = cases[np.argsort(times.time_N[cases], kind="stable")]
    forms = [_questions(times, p.score, horizon) for horizon in horizons]

    def of(W_RN: np.ndarray) -> np.ndarray:
        """Cases weigh what their censoring says from the first horizon on that they have an event by."""
        by_then_NR = W_RN.T[cases] * _inverse(W_RN, times, cases).T
        survival_GR = np.concatenate([np.ones((1, len(W_RN))), times.surviving(W_RN).T])
        survival_RH = survival_GR[[0, *(times.before(h) for h in horizons)]].T
        mixed_NR, auc_HR, done = W_RN.T.copy(), [], 0
        for horizon, at in zip(horizons, forms, strict=True):
            upto = int(np.searchsorted(times.time_N[cases], horizon, side="right"))
            mixed_NR[cases[done:upto]] = by_then_NR[done:upto]
            auc_HR.append(weighted.area(*at(mixed_NR.T)) if at else weighted.nothing(W_RN))
            done = upto
        return _mean(np.stack(auc_HR, 1), -np.diff(survival_RH, axis=1))

    return of


def _questions(times: Times, score_N: np.ndarray, horizon: float) -> weighted.Both | None:
    """Steps of the score over those with an event by then and those without one yet; None where there are neither."""
    by_then_N = times.event_N & (times.time_N <= horizon)
    case_M = np.flatnonzero(by_then_N | (times.time_N > horizon))
    if not len(case_M):
        return None
    return weighted.steps(case_M, by_then_N[case_M], score_N[case_M], join=True)[0]


def _mean(auc_RH: np.ndarray, weight_RH: np.ndarray) -> np.ndarray:
    """Weighted over the horizons that have a value; one horizon needs no weight."""
    if auc_RH.shape[1] == 1:
        return auc_RH[:, 0]
    weight_RH = np.where(np.isnan(auc_RH), 0.0, weight_RH)
    return ratio((np.nan_to_num(auc_RH) * weight_RH).sum(1), weight_RH.sum(1))


def _horizons(p: Predictions) -> np.ndarray:
    assert p.horizons_H is not None, (
        "the metrics c_uno and time_auc need Predictions.horizons_H, times of training events"
    )
    return p.horizons_H


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

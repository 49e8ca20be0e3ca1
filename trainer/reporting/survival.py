"""Survival by predicted risk: Kaplan and Meier's estimate in thirds of the test patients, with the log-rank test of all of them.

Log-rank of several groups: Mantel, Cancer Chemotherapy Reports 50, 1966. Shape letters: N cases, P patients, K groups, G times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trainer.reporting import cases
from trainer.reporting.curves import MOST_PANELS, chosen
from trainer.reporting.figures import Plot, canvas, svg
from trainer.reporting.groups import Amount, Entry, Group
from trainer.reporting.words import p_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trainer.downstream.metrics.predictions import Predictions

THIRDS = (("lower", "#0072B2", "-"), ("middle", "#009E73", "-."), ("higher", "#D55E00", "--"))


def risk_thirds(predictions: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """time_P, event_P and third_P (0 the lowest predicted risk, 2 the highest); None where cases of a patient differ in time.

    The scale of a Cox model's risk is its own, so seeds are joined by the ranks they give; a patient's rank is the mean over the
    patient's cases. A third lies strictly above the quantile that bounds it, so that equal risks never part.
    """
    from scipy.stats import rankdata

    known = [p.known() for p in predictions]
    rank_N = np.mean([rankdata(p.score) for p in known], 0)
    patients_P, first_P, of_N = np.unique(known[0].patients_N, return_index=True, return_inverse=True)
    rank_P = np.bincount(of_N, rank_N, len(patients_P)) / np.bincount(of_N, minlength=len(patients_P))
    time_P, event_P = known[0].target[first_P].T
    if not np.array_equal(known[0].target, known[0].target[first_P][of_N]):
        return None  # cases of a patient with times of their own: no one of them is the patient's
    return time_P, event_P, (rank_P[:, None] > np.quantile(rank_P, [1 / 3, 2 / 3])).sum(1)


def logrank(time_P: np.ndarray, event_P: np.ndarray, group_P: np.ndarray) -> float:
    """p of the log-rank test that all groups have one hazard; NaN for one group, or where nobody has an event while others are followed."""
    from scipy.stats import chi2

    groups_K = np.unique(group_P)
    time_G = np.unique(time_P[event_P == 1])
    if len(groups_K) < 2 or not len(time_G):
        return float("nan")
    inside_KP = group_P == groups_K[:, None]
    now_GP, risk_GP = (time_P == time_G[:, None]) & (event_P == 1), time_P >= time_G[:, None]
    died_GK, risk_GK = now_GP @ inside_KP.T.astype(float), risk_GP @ inside_KP.T.astype(float)
    died_G, risk_G = died_GK.sum(1), risk_GK.sum(1)
    share_GK = risk_GK / risk_G[:, None]
    excess_K = (died_GK - died_G[:, None] * share_GK).sum(0)
    spread_G = died_G * (risk_G - died_G) / np.maximum(risk_G - 1, 1)
    covariance_KK = np.diag(spread_G @ share_GK) - (share_GK * spread_G[:, None]).T @ share_GK
    freedom = int(np.linalg.matrix_rank(covariance_KK))
    if not freedom:
        return float("nan")
    return float(chi2.sf(excess_K @ np.linalg.pinv(covariance_KK) @ excess_K, freedom))


def survivals(group: Group, amount: Amount) -> list[Plot]:
    plots = (_survival(e, amount) for e in chosen(group, amount, MOST_PANELS))
    return [p for p in plots if p is not None]


def _survival(e: Entry, amount: Amount) -> Plot | None:
    """Kaplan and Meier's estimate in the thirds; None where all patients have the same risk, or a patient several times."""
    found = risk_thirds(cases.predictions(e.results))
    if found is None or len(np.unique(found[2])) < 2:
        return None
    time_P, event_P, third_P = found
    with canvas(3.2) as figure:
        axes = figure.add_subplot()
        for k in np.unique(third_P):
            _third(axes, time_P[third_P == k], event_P[third_P == k] == 1, *THIRDS[k])
        axes.set(xlabel="time (in the label's unit)", ylabel="surviving", ylim=(-0.02, 1.02), xlim=(0, None))
        axes.legend(fontsize=8, frameon=False, loc="best")
        uri = svg(figure)
    p = logrank(time_P, event_P, third_P)
    caption = f"Test patients in thirds of predicted risk; ticks: censored. Log-rank p {p_value(p)} (not corrected for other settings)."
    return Plot(f"Survival, {e.name}, {amount.name}", caption, uri)


def _third(axes: Axes, time_P: np.ndarray, event_P: np.ndarray, name: str, colour: str, line: str) -> None:
    from scipy.stats import CensoredData, ecdf

    text = f"{name} risk: {len(time_P)} patients, {int(event_P.sum())} events"
    sf = ecdf(CensoredData(time_P[event_P], right=time_P[~event_P])).sf
    _steps(axes, sf, time_P.max(), time_P[~event_P], color=colour, linestyle=line, label=text)


class Steps(Protocol):
    """A survival function that falls in steps, as SciPy gives it."""

    @property
    def quantiles(self) -> np.ndarray: ...

    @property
    def probabilities(self) -> np.ndarray: ...

    def evaluate(self, x: np.ndarray) -> np.ndarray: ...


def _steps(axes: Axes, sf: Steps, last: float, censored: np.ndarray, **style: Any) -> None:
    x, y = np.r_[0, sf.quantiles, last], np.r_[1, sf.probabilities, sf.probabilities[-1]]
    axes.step(x, y, where="post", **style)
    axes.plot(censored, sf.evaluate(censored), "|", color=style["color"], markersize=6)

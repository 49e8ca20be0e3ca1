"""What lies behind a number: ROC curves, confusion matrices, survival by predicted risk. All from predictions case by case.

Shape letters: N cases, K classes, P patients, G points of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trainer.reporting import cases
from trainer.reporting.figures import INK, Plot, canvas, plain, svg
from trainer.reporting.groups import Amount, Entry, Group
from trainer.reporting.words import number, p_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

if TYPE_CHECKING:
    from trainer.downstream.metrics.predictions import Predictions

MOST_LINES, MOST_PANELS = 8, 4
MOST_NUMBERED = 10  # classes; beyond, a confusion matrix's cells are too small for numbers
GRID_G = np.linspace(0, 1, 501)


def chosen(group: Group, amount: Amount, most: int) -> list[Entry]:
    """The settings that get a panel of their own: the best ones; controls and leaks last."""
    return sorted(group.at(amount), key=lambda e: not e.eligible)[:most]


# --------------------------------------------------------------------------------------------------------------------- ROC


def roc(group: Group, amount: Amount, styles: dict[str, dict[str, Any]]) -> Plot | None:
    """True against false positive rate; None where no setting has both classes in its test cases."""
    shown = [
        (e, y) for e in chosen(group, amount, MOST_LINES) if (y := mean_roc(cases.predictions(e.results))) is not None
    ]
    if not shown:
        return None
    with canvas(4.4 + 0.17 * len(shown)) as figure:
        axes = figure.add_subplot()
        axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":")
        for e, tpr_G in shown:
            auc = f"  {number(e.metrics['auc'].value)}" if "auc" in e.metrics else ""
            axes.plot(np.r_[0, GRID_G], np.r_[0, tpr_G], label=plain(e.name) + auc, **styles[e.label])
        axes.set(
            xlabel="false positive rate",
            ylabel="true positive rate",
            aspect="equal",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
        )
        figure.legend(loc="outside lower left", fontsize=8, frameon=False)
        uri = svg(figure)
    over = "seeds and labels that have both classes" if group.kind == "multilabel" else "seeds"
    more = len(group.at(amount)) - len(shown)
    caption = f"Mean over {over} of the true positive rate at each false positive rate; dotted: chance."
    return Plot(f"ROC, {amount.name}", caption + (f" {more} more settings are not drawn." if more else ""), uri)


def mean_roc(predictions: Sequence[Predictions]) -> np.ndarray | None:
    """[G] true positive rate at GRID_G (vertical averaging: Fawcett 2006, Pattern Recogn. Lett. 27, 861)."""
    from sklearn.metrics import roc_curve

    curves = []
    for p in predictions:
        columns = (x.reshape(len(p.keys_N), -1).T for x in (p.target, p.score))
        for target_N, score_N in zip(*columns, strict=True):
            known_N = ~np.isnan(target_N)
            if len(np.unique(target_N[known_N])) == 2:
                fpr, tpr, _ = roc_curve(target_N[known_N], score_N[known_N])
                # Where the curve rises straight up, interpolation takes the upper end.
                curves.append(np.interp(GRID_G, fpr, tpr))
    return np.mean(curves, 0) if curves else None


# --------------------------------------------------------------------------------------------------------------- confusion


def mean_confusion(predictions: Sequence[Predictions]) -> tuple[np.ndarray, tuple[str, ...]]:
    """[K, K] mean count over seeds of cases by true (row) and predicted (column) class, and the classes' names."""
    first = predictions[0]
    K = 2 if first.kind == "binary" else first.score.shape[1]
    names = first.classes if len(first.classes) == K else tuple(str(k) for k in range(K))
    counts_KK = np.zeros((K, K))
    for p in [p.known() for p in predictions]:
        np.add.at(counts_KK, (p.truth(), p.decided()), 1 / len(predictions))
    return counts_KK, names


def confusions(group: Group, amount: Amount) -> list[Plot]:
    return [_confusion(e, amount) for e in chosen(group, amount, MOST_PANELS)]


def _confusion(e: Entry, amount: Amount) -> Plot:
    counts_KK, names = mean_confusion(cases.predictions(e.results))
    share_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1e-12)
    K = len(names)
    with canvas(3.8) as figure:
        axes = figure.add_subplot()
        axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
        for i, j in np.ndindex(K, K) if K <= MOST_NUMBERED else ():
            text = f"{counts_KK[i, j]:.1f}\n{100 * share_KK[i, j]:.0f} %" if K <= 6 else f"{counts_KK[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if share_KK[i, j] > 0.6 else INK)
        shown = [plain(n if len(n) <= 14 else n[:13] + "…") for n in names]
        axes.set_xticks(range(K), shown, rotation=45 if K > 3 else 0, ha="right" if K > 3 else "center")
        axes.set_yticks(range(K), shown)
        axes.set(xlabel="predicted", ylabel="true")
        axes.spines[:].set_visible(False)
        uri = svg(figure)
    caption = "Test cases (mean over seeds) and their share of the true class."
    return Plot(f"Confusion, {e.name}, {amount.name}", caption, uri)


# ---------------------------------------------------------------------------------------------------------------- survival


def risk_halves(predictions: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """time_P, event_P and whether a patient is in the half of higher predicted risk; None where cases of a patient differ in time.

    The scale of a Cox model's risk is its own, so seeds are joined by the ranks they give; a patient's rank is the mean over the
    patient's cases. The half of higher risk lies strictly above the median, so that equal risks never part.
    """
    from scipy.stats import rankdata

    known = [p.known() for p in predictions]
    rank_N = np.mean([rankdata(p.score) for p in known], 0)
    patients_P, first_P, of_N = np.unique(known[0].patients_N, return_index=True, return_inverse=True)
    rank_P = np.bincount(of_N, rank_N, len(patients_P)) / np.bincount(of_N, minlength=len(patients_P))
    time_P, event_P = known[0].target[first_P].T
    if not np.array_equal(known[0].target, known[0].target[first_P][of_N]):
        return None  # cases of a patient with times of their own: no one of them is the patient's
    return time_P, event_P, rank_P > np.median(rank_P)


def survivals(group: Group, amount: Amount) -> list[Plot]:
    plots = (_survival(e, amount) for e in chosen(group, amount, MOST_PANELS))
    return [p for p in plots if p is not None]


def _survival(e: Entry, amount: Amount) -> Plot | None:
    """Kaplan and Meier's estimate in both halves; None where all patients have the same risk, or a patient several times."""
    from scipy.stats import CensoredData, ecdf, logrank

    found = risk_halves(cases.predictions(e.results))
    if found is None:
        return None
    time_P, event_P, high_P = found
    if high_P.all() or not high_P.any():
        return None
    halves = {
        name: CensoredData(time_P[h & (event_P == 1)], right=time_P[h & (event_P == 0)])
        for name, h in (("lower", ~high_P), ("higher", high_P))
    }
    with canvas(3.2) as figure:
        axes = figure.add_subplot()
        for (name, half), colour, line in zip(halves.items(), ("#0072B2", "#D55E00"), ("-", "--"), strict=True):
            here = high_P == (name == "higher")
            text = f"{name} risk: {int(here.sum())} patients, {int(event_P[here].sum())} events"
            _steps(
                axes,
                ecdf(half).sf,
                time_P[here].max(),
                time_P[here & (event_P == 0)],
                color=colour,
                linestyle=line,
                label=text,
            )
        axes.set(xlabel="time (in the label's unit)", ylabel="surviving", ylim=(-0.02, 1.02), xlim=(0, None))
        axes.legend(fontsize=8, frameon=False, loc="best")
        uri = svg(figure)
    p = logrank(*halves.values()).pvalue if event_P.any() else float("nan")
    caption = f"Test patients in halves of predicted risk; ticks: censored. Log-rank p {p_value(p)} (not corrected for other settings)."
    return Plot(f"Survival, {e.name}, {amount.name}", caption, uri)


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

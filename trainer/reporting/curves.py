"""What lies behind a number: ROC curves and confusion matrices, from predictions case by case.

Shape letters: N cases, K classes, G points of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.reporting import cases
from trainer.reporting.figures import INK, Plot, canvas, plain, svg, unmarked
from trainer.reporting.groups import Amount, Entry, Group
from trainer.reporting.words import number

if TYPE_CHECKING:
    from trainer.downstream.metrics.predictions import Predictions

MOST_LINES, MOST_PANELS = 8, 4
MOST_NUMBERED = 10  # classes; beyond, a confusion matrix's cells are too small for numbers
GRID_G = np.linspace(0, 1, 501)
MARKED = (20, 60)
"""Points of a curve with a marker: the first, and every so many behind it."""


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
    marked = len({styles[e.label]["marker"] for e, _ in shown}) > 1
    with canvas(4.4 + 0.17 * len(shown)) as figure:
        axes = figure.add_subplot()
        axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":")
        for e, tpr_G in shown:
            auc = f"  {number(e.metrics['auc'].value)}" if "auc" in e.metrics else ""
            style = styles[e.label] if marked else unmarked(styles[e.label])
            axes.plot(
                np.r_[0, GRID_G], np.r_[0, tpr_G], label=plain(e.name) + auc, markevery=MARKED, markersize=4, **style
            )
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

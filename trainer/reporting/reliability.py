"""The reliability picture: what happened of what was said with some probability, in the bins of the expected calibration error.

Shape letters: M statements, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.reporting import cases
from trainer.reporting.curves import MOST_LINES, chosen
from trainer.reporting.figures import INK, Plot, canvas, plain, svg, unmarked
from trainer.reporting.groups import Amount, Group
from trainer.reporting.words import number

if TYPE_CHECKING:
    from trainer.downstream.metrics.predictions import Predictions


def bins(predictions: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(said_B, happened_B, count_B): mean probability and share in each bin that holds a statement, over all seeds and labels."""
    from trainer.downstream.metrics.calibration import BINS, bin_of, stated

    columns = [c for p in predictions for c in stated(p.known())]
    truth_M, score_M = (np.concatenate([np.asarray(c[i], float) for c in columns]) for i in (1, 2))
    at_M = bin_of(score_M)
    count_B, said_B, happened_B = (np.bincount(at_M, w, BINS) for w in (None, score_M, truth_M))
    filled_B = count_B > 0
    return said_B[filled_B] / count_B[filled_B], happened_B[filled_B] / count_B[filled_B], count_B[filled_B]


def reliability(group: Group, amount: Amount, styles: dict[str, dict[str, Any]]) -> list[Plot]:
    """One picture with a line a setting; points as large as the root of how many statements they hold."""
    shown = chosen(group, amount, MOST_LINES)
    with canvas(4.4 + 0.17 * len(shown)) as figure:
        axes = figure.add_subplot()
        axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":")
        for e in shown:
            said_B, happened_B, count_B = bins(cases.predictions(e.results))
            ece = f"  {number(e.metrics['ece'].value)}" if "ece" in e.metrics else ""
            axes.plot([], [], label=plain(e.name) + ece, **styles[e.label], markersize=4)
            axes.plot(said_B, happened_B, **unmarked(styles[e.label]))
            sizes = 60 * np.sqrt(count_B / count_B.max())
            colour, marker = styles[e.label]["color"], styles[e.label]["marker"]
            axes.scatter(said_B, happened_B, s=sizes, color=colour, marker=marker, alpha=0.6, linewidths=0)
        axes.set(xlabel="probability said", ylabel="share that happened", aspect="equal")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        figure.legend(loc="outside lower left", fontsize=8, frameon=False)
        uri = svg(figure)
    what = "the most probable class being right" if group.kind == "multiclass" else "yes"
    over = {"multilabel": "seeds and labels", "ordinal": "seeds and thresholds of the grade"}.get(group.kind, "seeds")
    caption = (
        f"Probability of {what} in ten bins of equal width against how often it was so, over {over}; dotted: as said. Points: by the "
        "number of statements; small ones are noise. Behind names: ece."
    )
    return [Plot(f"Reliability, {amount.name}", caption, uri)]

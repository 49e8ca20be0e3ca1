"""Differences of one amount of labels with their intervals, a line a setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.reporting.figures import INK, Plot, canvas, plain, svg
from trainer.reporting.groups import Amount, Group
from trainer.reporting.pairs import BEST, CONTROLLED, SCRATCH, Pair
from trainer.reporting.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEHIND = {"boxstyle": "square,pad=0.1", "facecolor": "white", "linewidth": 0, "alpha": 0.8}
BETTER, WORSE, UNCLEAR = "#0072B2", "#D55E00", "#5f5f5f"
TITLES = {
    BEST: "Differences from the best",
    SCRATCH: "Differences from scratch",
    CONTROLLED: "Differences from no control",
}

SAME = {SCRATCH: "from scratch", CONTROLLED: "without the control", BEST: "with the best number"}


def forests(group: Group, amount: Amount, tested: Sequence[Pair]) -> list[Plot]:
    """One plot an opponent: the best, the same without pre-training, the same without a control; none where nobody met it."""
    here = [t for t in tested if t.entry.amount == amount]
    return [p for against in TITLES if (p := _forest(group, amount, [t for t in here if t.against == against]))]


def _forest(group: Group, amount: Amount, met: Sequence[Pair]) -> Plot | None:
    sign = -1 if group.higher_is_better else 1
    shown = sorted((t for t in met if _known(t)), key=lambda t: sign * t.difference)
    if not shown:
        return None
    with canvas(0.6 + 0.36 * len(shown)) as figure:
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(*_limits(shown))
        for y, t in enumerate(shown):
            _line(axes, y, t, -sign)
        axes.set_ylim(len(shown) - 0.5, -0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(
            f"difference in {plain(group.primary)}" + ("" if group.higher_is_better else " (lower is better)")
        )
        uri = svg(figure)
    return Plot(f"{TITLES[met[0].against]}, {amount.name}", _caption(met, len(met) - len(shown)), uri)


def _known(t: Pair) -> bool:
    return not (t.problem or t.degenerate or any(map(math.isnan, (t.difference, *t.interval))))


def told_apart(t: Pair) -> bool:
    """What a star marks in the tables."""
    return t.marked


def _limits(shown: Sequence[Pair]) -> tuple[float, float]:
    """From the points and the middle of the intervals: with two seeds some reach so far that all others would be dots."""
    lengths = sorted(t.interval[1] - t.interval[0] for t in shown)
    most = 2 * lengths[len(lengths) // 2]
    low = min(0.0, *(max(t.interval[0], t.difference - most) for t in shown))
    high = max(0.0, *(min(t.interval[1], t.difference + most) for t in shown))
    aside = 0.03 * (high - low) or 0.01
    return low - aside, high + aside


def _line(axes: Axes, y: int, t: Pair, sign: int) -> None:
    """An interval that leaves the plot ends in an arrow at its edge."""
    (left, right), (low, high), apart = axes.get_xlim(), t.interval, told_apart(t)
    colour = UNCLEAR if not apart else BETTER if sign * t.difference > 0 else WORSE
    axes.plot((max(low, left), min(high, right)), (y, y), color=colour, linewidth=1.6, solid_capstyle="butt")
    for beyond, at, arrow in ((low < left, left, "<"), (high > right, right, ">")):
        if beyond:
            axes.plot([at], [y], arrow, color=colour, markersize=5, clip_on=False)
    axes.plot([t.difference], [y], "o", color=colour, markersize=5, markerfacecolor=colour if apart else "white")
    text = f"{plain(t.entry.name)}  {number(t.difference, True)}"
    axes.annotate(
        text, (0, y - 0.3), (2, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=8, bbox=BEHIND
    )


def _caption(met: Sequence[Pair], left_out: int) -> str:
    opponents = list(dict.fromkeys(t.other.label for t in met))
    same = f"the same method, mode and inputs {SAME[met[0].against]}"
    against = f"Row minus {opponents[0] if len(opponents) == 1 else same}"
    text = (
        f"{against}, on the same test patients, with 95 % intervals. Filled: p < 0.05 after Holm's correction over all pairs of the "
        "task, several seeds on both sides; blue better, orange worse. Arrows: the interval goes on."
    )
    return text + f" {left_out} without an interval, or on other test cases, are left out." * (left_out > 0)

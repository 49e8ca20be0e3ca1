"""Bars with intervals, and how a value grows with the labels trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from trainer.reporting.curves import MOST_LINES, chosen
from trainer.reporting.figures import INK, Plot, canvas, plain, svg
from trainer.reporting.groups import Amount, Entry, Group, Setting
from trainer.reporting.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANCE = {"auc": 0.5, "auc_micro": 0.5, "image_auc": 0.5, "c_index": 0.5}
PALE = "#b5b5b5"
Styles = dict[str, dict[str, Any]]


def bars(group: Group, amount: Amount, styles: Styles) -> Plot:
    """One bar a setting, the best on top; dots are seeds."""
    entries = [e for e in group.at(amount) if not math.isnan(e.measured.value)]
    with canvas(0.55 + 0.42 * max(1, len(entries))) as figure:
        axes = figure.add_subplot()
        for y, e in enumerate(entries):
            _bar(axes, y, e, styles[e.label])
        if group.primary in CHANCE:
            axes.axvline(CHANCE[group.primary], color=INK, linewidth=0.8, linestyle=":")
        axes.set_ylim(len(entries) - 0.4, -0.75)
        axes.set_xlim(*_limits(group))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(plain(group.primary) + ("" if group.higher_is_better else " (lower is better)"))
        uri = svg(figure)
    undefined = len(group.at(amount)) - len(entries)
    caption = "Bars: mean over seeds; lines: interval over patients; dots: seeds."
    caption += " Dotted line: chance." if group.primary in CHANCE else ""
    caption += f" {undefined} without a defined value are left out." if undefined else ""
    return Plot(f"{group.primary}, {amount.name}", caption, uri)


def _limits(group: Group) -> tuple[float, float]:
    """The same for all amounts of labels, from zero, so that bars may be compared across plots."""
    ends = [v for e in group.entries for v in (*e.measured.per_seed, *(e.measured.interval or ())) if not math.isnan(v)]
    return 1.02 * min(0.0, *ends, 0.0), 1.02 * max(0.0, *ends, 0.0) or 1.0


def _bar(axes: Axes, y: int, e: Entry, style: dict[str, Any]) -> None:
    m = e.measured
    pale = e.setting.scratch or e.setting.control is not None
    axes.barh(y, m.value, height=0.42, color=style["color"], alpha=0.35 if pale else 0.75)
    if m.interval and not any(map(math.isnan, m.interval)):
        axes.plot(m.interval, (y, y), color=INK, linewidth=1.4, solid_capstyle="butt")
    axes.plot(m.per_seed, [y] * len(m.per_seed), "o", color=INK, markersize=2.6, alpha=0.8)
    axes.annotate(
        f"{plain(e.name)}  {number(m.value)}",
        (0, y - 0.27),
        (2, 0),
        textcoords="offset points",
        va="bottom",
        fontsize=8,
    )


def efficiency(group: Group, styles: Styles) -> list[Plot]:
    """Value against the fraction of labels, and against cases a class, where there are several."""
    fractions = [a for a in group.amounts if not a.shots]
    shots = [a for a in group.amounts if a.shots]
    out = []
    if len(fractions) > 1:
        out.append(
            _curve(group, fractions, [100 * a.fraction for a in fractions], "labels of the training split (%)", styles)
        )
    if len(shots) > 1:
        out.append(_curve(group, shots, [float(a.shots) for a in shots], "cases a class", styles))
    return out


def _curve(group: Group, amounts: list[Amount], at: list[float], label: str, styles: Styles) -> Plot:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    x = dict(zip(amounts, at, strict=True))
    settings = [s for s in group.settings if sum(e.setting == s and e.amount in x for e in group.entries)]
    named = [e.setting for e in chosen(group, amounts[-1], len(group.entries)) if e.setting in settings][:MOST_LINES]
    rest = [s for s in settings if s not in named]
    with canvas(3.2 + 0.17 * len(named)) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for s in rest:
            entries = _of(group, s, x)
            axes.plot([x[e.amount] for e in entries], [e.measured.value for e in entries], color=PALE, linewidth=0.9)
        for i, s in enumerate(named):
            # Intervals of several settings at one amount stand side by side.
            _line(axes, _of(group, s, x), x, 1.03 ** (i - (len(named) - 1) / 2), styles)
        axes.xaxis.set_major_locator(FixedLocator(at))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticklabels([f"{v:g}" for v in at])
        axes.set(xlabel=label, ylabel=plain(group.primary))
        axes.grid(alpha=0.25)
        figure.legend(loc="outside lower left", fontsize=8, frameon=False)
        uri = svg(figure)
    caption = f"{group.primary} by {label}, logarithmic; lines: interval over patients."
    return Plot("Label efficiency", caption + f" Grey: {len(rest)} more settings." * bool(rest), uri)


def _of(group: Group, setting: Setting, x: dict[Amount, float]) -> list[Entry]:
    """Of one setting, by the amount of labels."""
    return sorted((e for e in group.entries if e.setting == setting and e.amount in x), key=lambda e: x[e.amount])


def _line(axes: Axes, entries: list[Entry], x: dict[Amount, float], aside: float, styles: Styles) -> None:
    at = [x[e.amount] * aside for e in entries]
    style = styles[entries[0].label]
    axes.plot(at, [e.measured.value for e in entries], markersize=4, label=plain(entries[0].label), **style)
    for position, e in zip(at, entries, strict=True):
        if e.measured.interval:
            axes.plot((position, position), e.measured.interval, color=style["color"], linewidth=1)

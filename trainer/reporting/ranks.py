"""Mean ranks over tasks with the critical difference (Demsar 2006), where the same settings stand on enough tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trainer.downstream.metrics.ranks import Ranked, cliques, ranked
from trainer.reporting import cases, words
from trainer.reporting.figures import INK, Plot, canvas, plain, svg
from trainer.reporting.groups import Entry, Group
from trainer.reporting.table import Table

FEWEST_TASKS, FEWEST_SETTINGS = 5, 3
TITLE = "Ranks over tasks"


class OverTasks(NamedTuple):
    """Table and picture, or why there is neither; all empty where there is no second task."""

    table: Table | None = None
    plot: Plot | None = None
    why_not: str = ""


def over_tasks(groups: Sequence[Group]) -> OverTasks:
    """Ranks by the primary metric at each task's largest amount of labels."""
    values = {g.name: found for g in groups if not g.external and not g.held_out and len(found := _values(g)) > 1}
    tasks, labels = _complete(values)
    if len(values) < 2:
        return OverTasks()
    if not tasks:
        return OverTasks(why_not=_why_not(values))
    value_NK = np.array([[values[t][label] for label in labels] for t in tasks])
    r = ranked(value_NK)
    order_K = np.argsort(r.mean_K, kind="stable")
    left = len({label for found in values.values() for label in found}) - len(labels)
    return OverTasks(_table(tasks, labels, r, order_K, left), _plot(tasks, labels, r, order_K))


def _values(g: Group) -> dict[str, float]:
    """By setting, higher is better: what may be ranked, on the test cases that most of them share."""
    entries = [e for e in g.at(g.amounts[-1]) if e.eligible]
    tested = {e.label: _cases(e) for e in entries}
    common = Counter(tested.values()).most_common(1)
    return {e.label: e.measured.goodness for e in entries if tested[e.label] == common[0][0]}


def _cases(e: Entry) -> frozenset[str]:
    return frozenset(cases.predictions(e.results)[0].keys_N.tolist())


def _complete(values: dict[str, dict[str, float]]) -> tuple[list[str], list[str]]:
    """Tasks and settings without a gap between them: of those with enough of both, the choice with most numbers."""
    best: tuple[list[str], list[str]] = ([], [])
    stands = _stands(values)
    for tasks in dict.fromkeys(stands.values()):
        labels = sorted(label for label, there in stands.items() if tasks <= there)
        enough = len(tasks) >= FEWEST_TASKS and len(labels) >= FEWEST_SETTINGS
        if enough and len(tasks) * len(labels) > len(best[0]) * len(best[1]):
            best = (sorted(tasks), labels)
    return best


def _stands(values: dict[str, dict[str, float]]) -> dict[str, frozenset[str]]:
    """By setting, its tasks."""
    labels = dict.fromkeys(label for found in values.values() for label in found)
    return {label: frozenset(t for t, found in values.items() if label in found) for label in labels}


def _why_not(values: dict[str, dict[str, float]]) -> str:
    stands = _stands(values)
    most = max(stands.values(), key=lambda tasks: (len(tasks), sorted(tasks)))
    sharing = sum(most <= there for there in stands.values())
    return (
        f"No picture of critical differences: Friedman's and Nemenyi's tests (Demsar 2006) take {FEWEST_TASKS} tasks or more on which "
        f"the same {FEWEST_SETTINGS} settings or more are ranked; here {sharing} "
        f"{'setting is' if sharing == 1 else 'settings are'} ranked on {len(most)} {'task' if len(most) == 1 else 'tasks'} together. "
        "Controls, leaks, constant answers, other test cases and too few patients are not ranked."
    )


def _verdict(r: Ranked) -> str:
    N, K = r.rank_NK.shape
    said = f"Friedman's test in Iman and Davenport's form: F({K - 1}, {(K - 1) * (N - 1)}) = {r.f:.2f}, p {words.p_value(r.p)}"
    if r.p >= r.alpha:
        return f"{said}: no setting is told from another by ranks, whatever the differences below."
    return (
        f"{said}. Mean ranks that differ by {r.critical:.2f} or more differ with p < {r.alpha:g} (Nemenyi, all pairs)."
    )


def _table(tasks: list[str], labels: list[str], r: Ranked, order_K: np.ndarray, left: int) -> Table:
    rows = tuple((labels[k], f"{r.mean_K[k]:.2f}", *(f"{v:g}" for v in r.rank_NK[:, k])) for k in order_K)
    bold = frozenset((i, 1) for i, k in enumerate(order_K) if r.mean_K[k] == r.mean_K.min())
    note = (
        f"{_verdict(r)} Ranks are by the primary metric at the largest amount of labels, means over seeds, 1 the best; they know nothing "
        "of how sure each number is. Tasks count alike and are taken as independent: with shared patients they say less than their number."
    )
    return Table(
        TITLE, ("", "mean rank", *tasks), rows, bold, note + f" {left} settings lack one of these tasks." * (left > 0)
    )


def _plot(tasks: list[str], labels: list[str], r: Ranked, order_K: np.ndarray) -> Plot:
    """The best on top; a bar at the right joins settings that are not told apart."""
    from matplotlib.ticker import MaxNLocator

    mean_K, K = r.mean_K[order_K], len(labels)
    joined = cliques(mean_K, r.critical) if r.p < r.alpha else [(0, K - 1)]
    with canvas(0.9 + 0.36 * K) as figure:
        axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=(8, max(1.0, 0.3 * len(joined))))
        axes.plot(mean_K, range(K), "o", color=INK, markersize=5)
        for y, k in enumerate(order_K):
            text = f"{plain(labels[k])}  {r.mean_K[k]:.2f}"
            axes.annotate(
                text, (0, y - 0.33), (2, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=8
            )
            axes.axhline(y, color=INK, linewidth=0.3, alpha=0.3)
        axes.errorbar([1 + r.critical / 2], [-1.2], xerr=r.critical / 2, color=INK, capsize=3, linewidth=1.4)
        axes.annotate(
            f"critical difference {r.critical:.2f}",
            (1 + r.critical, -1.2),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
        axes.set(
            xlim=(0.8, max(K, 1 + r.critical) + 0.2),
            ylim=(K - 0.5, -1.7),
            yticks=[],
            xlabel="mean rank (1 is the best)",
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for x, (first, last) in enumerate(joined):
            beside.plot((x, x), (first - 0.15, last + 0.15), color=INK, linewidth=3, solid_capstyle="butt")
        beside.set(xlim=(-0.5, len(joined) - 0.5), xticks=[])
        for each in (axes, beside):
            each.spines["left"].set_visible(False)
        beside.spines["bottom"].set_visible(False)
        beside.tick_params(left=False)
        uri = svg(figure)
    caption = f"{len(tasks)} tasks. {_verdict(r)} Bars at the right join settings whose mean ranks are not told apart."
    return Plot("Critical difference over tasks", caption, uri)

"""Settings against each other over several tasks: is one better, or are they the same for all practical purposes?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from trainer.errors import UserError
from trainer.reporting import cases, words
from trainer.reporting.groups import Entry, Group
from trainer.reporting.pairs import is_drawn_once
from trainer.reporting.table import Table

MOST = 5
"""Settings that are shown, those with most tasks first: pairs grow with the square."""


def table(groups: Sequence[Group], draws: int, seed: int, rope: float) -> Table | None:
    """A line a pair of settings that have two tasks or more in common; None where there is none."""
    shared = _entries(groups)
    labels = sorted(shared, key=lambda label: (-len(shared[label]), label))[:MOST]
    rows = [row for a, b in combinations(labels, 2) if (row := _row(a, b, shared, draws, seed, rope))]
    if not rows:
        return None
    head = (
        "",
        "against",
        "tasks",
        "mean difference",
        f"better by over {rope:g}",
        "equivalent",
        f"worse by over {rope:g}",
    )
    note = (
        f"Probabilities that the mean difference of all such tasks lies above {rope:g}, within, and below -{rope:g}; in brackets its 95 % "
        "credible interval. Random effects: tasks' differences, with standard errors over patients and seeds, around a mean (flat "
        "prior; spread of tasks half-normal, 0.05). Primary metrics within 0 and 1, at the largest amount of labels. Tasks with few "
        "patients, or with shared ones, say less than their number. A site held out is no task of its own, and results that only their "
        "folders tell apart are left out, as is a task on which both say the same of every case: it has no standard error. Of one seed: a "
        "system stands in the task with one training, and of one seed each no standard error knows of others; such probabilities are "
        "of these trainings more than of the systems. In simulation the interval held the true mean in 92 to 96 % where tasks stray by "
        "0.05, in 97 to 100 % where by less, and in 80 to 91 % where by 0.1 (docs/results/coverage.md)."
    )
    more = f" {len(shared) - MOST} settings are not shown." * (len(shared) > MOST)
    return Table("Over several tasks", head, tuple(rows), note=note + more)


def _entries(groups: Sequence[Group]) -> dict[str, dict[str, Entry]]:
    """By setting and task what may be compared: ranked, without a leak, of a metric within 0 and 1."""
    from trainer.downstream.metrics.table import METRICS

    out: dict[str, dict[str, Entry]] = {}
    for g in groups:
        # Cases of a site that was held out are those of the task again.
        if g.external or g.held_out or METRICS[g.primary].scale != "share" or not g.higher_is_better:
            continue
        for e in g.at(g.amounts[-1]):
            if e.eligible:
                out.setdefault(e.label, {})[g.name] = e
    return out


def _row(
    a: str, b: str, shared: dict[str, dict[str, Entry]], draws: int, seed: int, rope: float
) -> tuple[str, ...] | None:
    from trainer.downstream.metrics.equivalence import over_tasks
    from trainer.downstream.metrics.statistics import paired

    found, once = [], 0
    for task in sorted(shared[a].keys() & shared[b].keys()):
        one, other = shared[a][task], shared[b][task]
        try:
            t = paired(cases.system(one.results), cases.system(other.results), one.first.content.primary, draws, seed)
        except UserError:  # other test cases: said in the task's own table
            continue
        if t.whole_error > 0:
            found.append((t.difference, t.whole_error))
            once += any(is_drawn_once(e, n) for e, n in zip((one, other), t.seeds, strict=True))
    if len(found) < 2:
        return None
    over = over_tasks([d for d, _ in found], [e for _, e in found], rope)
    span = f"{words.number(over.mean, True)} ({words.span((over.low, over.high), True)})"
    tasks = f"{over.tasks}{f' ({once} of one seed)' * bool(once)}"
    return (a, b, tasks, span, *(f"{p:.3f}" for p in (over.above, over.within, over.below)))

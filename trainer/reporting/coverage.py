"""What simulation found of the intervals of differences in a report: they may be too narrow where each number's own are not."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.reporting import cases
from trainer.reporting.groups import Group

OVER_SEEDS = (("binary", "auc"), ("binary", "accuracy"))
"""Kinds and metrics whose differences were simulated with several trainings a system."""
SEVERAL = (
    "simulation of this metric was of one training a system: how often intervals over several seeds hold the true value was "
    "not simulated"
)


def notes(groups: Sequence[Group]) -> list[str]:
    """Sentences on the differences of systems, and from own test cases to other data, by each task's primary metric."""
    from trainer.downstream.metrics.simulated import LEVEL, outside

    out = []
    for g in groups:
        compared = [e for e in g.entries if not e.leaking and e.measured.level == LEVEL]
        if not compared:
            continue
        p = cases.predictions(compared[0].results)[0]
        # A site held out stands beside the same cases of the training that saw it, as one system beside another.
        lines = outside(p, [g.primary], "systems") if len(compared) > 1 or g.held_out else []
        lines += outside(p, [g.primary], "hospitals") if g.external else []
        if (g.kind, g.primary) not in OVER_SEEDS and any(len(e.measured.per_seed) > 1 for e in compared):
            lines.append(SEVERAL)
        out += [f"{g.name}: {line}" for line in lines]
    return out

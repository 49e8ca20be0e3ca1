"""Whether intervals like a result's held the true value in simulation: what `tests/benchmarks/coverage.py` found, cell by cell.

`coverage.yaml` has the share of 500 data sets, in percent, by cohort, metric, and `PATIENTSxIMAGES` (`1`, or `1-10` at random); the
cohorts are those of the simulation. A cell that was not measured, or a metric that was not, warns of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from trainer.config import yaml_text
from trainer.downstream.metrics import weighted
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import METRICS

CELLS = Path(__file__).with_name("coverage.yaml")
DIFFERENCES = Path(__file__).with_name("differences.yaml")
"""The same of differences, {how: {cohort: ...}}."""
PARTS = Path(__file__).with_name("parts.yaml")
"""The same of parts of a result (`tests/benchmarks/coverage_of_parts.py`)."""
How = Literal["systems", "hospitals", "calibrated", "gap of 2 groups", "gap of 4 groups", "sites"]
"""Differences of two systems on the same test cases, or of one between these and other patients', of whom there were twice as many; numbers
of divided log odds; what parts the worst group from the best; how well a site is read from features."""
WITHIN = (93.0, 97.0)
"""Percent; a cell of exactly 95 leaves these bounds once in 25 times by chance."""
LEVEL = 0.95
"""Of the intervals that were simulated."""
RARE, STRONG = 0.15, 0.93
"""Share of the rarer answer's patients below which a binary cohort is `rare`, and AUC from which it is `strong`."""
SEVERAL = 1.5
"""Cases a patient from which there are several."""
FURTHEST = 2.0
"""Factor of patients up to which a simulated size stands for others."""


@cache
def cells() -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """{cohort: {metric: {PATIENTSxIMAGES: percent}}}."""
    return yaml_text.read(CELLS, "a table of coverage")


@cache
def cells_of_differences() -> Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]:
    """{how: {cohort: {metric: {PATIENTSxIMAGES: percent}}}}."""
    return yaml_text.read(DIFFERENCES, "a table of coverage")


@cache
def cells_of_parts() -> Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]:
    """{how: {cohort: {metric: {PATIENTSxIMAGES: percent}}}}."""
    return yaml_text.read(PARTS, "a table of coverage")


SAID: dict[How | None, str] = {
    None: "95 % intervals",
    "systems": "95 % intervals of differences between two systems",
    "hospitals": "95 % intervals of differences from other patients' cases",
    "calibrated": "95 % intervals of calibrated numbers",
    "gap of 2 groups": "95 % intervals of the gap between two groups",
    "gap of 4 groups": "95 % intervals of the gap between the worst and the best of four groups",
    "sites": "95 % intervals of how well a site is read from features",
}


def outside(p: Predictions, metrics: Sequence[str], how: How | None = None) -> list[str]:
    """Sentences on the metrics whose intervals, over test cases like these, held the true value too seldom or too often.

    how: of their differences, or of a part of a result, instead; where differences are between two sets of patients, `p` is of the smaller
        set; for `sites` its cases have the site as their answer.
    """
    cohort, (patients, images) = cohort_of(p), size_of(p)
    table = cells() if how is None else {**cells_of_differences(), **cells_of_parts()}[how]
    found = {m: v for m in metrics if (v := _cell(table.get(cohort, {}).get(m, {}), patients, images)) is not None}
    like = f"of such test cases (simulated: {cohort}, {{}} patients with {'one image' if images == '1' else '1 to 10 images'} each)"
    lines = []
    for wrong, words in ((_low, "too seldom: take them for too narrow"), (_high, "more often than they say")):
        named = {m: v for m, v in found.items() if wrong(v[1])}
        if named:
            sizes = " or ".join(str(n) for n in sorted({n for n, _ in named.values()}))
            shares = ", ".join(f"{m} in {share:.1f} %" for m, (_, share) in named.items())
            lines.append(f"{SAID[how]} {like.format(sizes)} held the true value {words} ({shares})")
    return lines


def cohort_of(p: Predictions) -> str:
    """The simulated cohort that these cases are most like."""
    known = p.known()
    if p.kind != "binary":
        return p.kind
    (case_M, truth_M, _), *_ = weighted.columns(known)
    of_M = known.patients_N[case_M]
    sides = [len(np.unique(of_M[truth_M == side])) for side in (True, False)]
    if min(sides) < RARE * sum(sides):
        return "rare"
    return "strong" if METRICS["auc"].compute(known) >= STRONG else "binary"


def size_of(p: Predictions) -> tuple[int, str]:
    """(patients, `1` or `1-10`)."""
    known = p.known()
    patients = len(np.unique(known.patients_N))
    return patients, "1-10" if len(known) >= SEVERAL * patients else "1"


def _cell(of_size: Mapping[str, float], patients: int, images: str) -> tuple[int, float] | None:
    """(patients, percent) of the measured size that is nearest by its logarithm."""
    measured = {
        int(name.partition("x")[0]): share for name, share in of_size.items() if name.partition("x")[2] == images
    }
    near = min(measured, key=lambda n: abs(math.log(n / max(patients, 1))), default=None)
    if near is None or abs(math.log(near / max(patients, 1))) > math.log(FURTHEST) + 1e-9:
        return None
    return near, measured[near]


def _low(share: float) -> bool:
    return share < WITHIN[0]


def _high(share: float) -> bool:
    return share > WITHIN[1]

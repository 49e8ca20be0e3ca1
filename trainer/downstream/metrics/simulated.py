"""Whether intervals like a result's held the true value in simulation: what `tests/benchmarks/coverage*.py` found, cell by cell.

`coverage.yaml` has the share of simulated data sets, in percent, by cohort, metric, and `PATIENTSxIMAGES` (`1`, or `1-10` at random); the
cohorts are those of the simulation. What was not simulated is said to be so: a metric, a cohort, or fewer patients than the smallest
measured size stands for. Of more patients than the largest one stands for nothing is said, nor under the floor (floor.py), which has a
sentence of its own.
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
from trainer.downstream.metrics.floor import PATIENTS
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import METRICS

CELLS = Path(__file__).with_name("coverage.yaml")
DIFFERENCES = Path(__file__).with_name("differences.yaml")
"""The same of differences, {how: {cohort: ...}}."""
PARTS = Path(__file__).with_name("parts.yaml")
"""The same of parts of a result (`tests/benchmarks/coverage_of_parts.py`)."""
How = Literal[
    "systems", "hospitals", "calibrated", "group", "gap of 2 groups", "gap of 4 groups", "gap of 4 groups, one worse", "gap of 8 groups",
    "sites", "robustness", "held out",
]  # fmt: skip
"""Differences of two systems on the same test cases, or of one between these and other patients', of whom there were twice as many; numbers
of divided log odds; a group of test cases, and what parts the worst from the best; how well a site is read from features, whether a case's
neighbours share it, and what is lost at sites held out."""
WITHIN = (93.0, 97.0)
"""Percent; a cell of exactly 95 leaves these bounds once in 25 times by chance."""
LEVEL = 0.95
"""Of the intervals that were simulated."""
RARE, STRONG = 0.15, 0.93
"""Share of the rarer answer's patients below which a binary cohort is `rare`, and AUC from which it is `strong`."""
SEVERAL = 1.5
"""Cases a patient from which there are several."""
FURTHEST = 2.5
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
    "group": "95 % intervals within a group",
    "gap of 2 groups": "95 % intervals of the gap between two groups",
    "gap of 4 groups": "95 % intervals of the gap between the worst and the best of four groups",
    "gap of 4 groups, one worse": "95 % intervals of the gap between the worst and the best of four groups, where one was worse,",
    "gap of 8 groups": "95 % intervals of the gap between the worst and the best of eight groups",
    "sites": "95 % intervals of how well a site is read from features",
    "robustness": "95 % intervals of the robustness index",
    "held out": "95 % intervals of what is lost at sites held out",
}


def of_gap(judged: int) -> tuple[How, ...]:
    """What stands for a gap between the worst and the best of so many groups."""
    if judged == 2:
        return ("gap of 2 groups",)
    return ("gap of 4 groups", "gap of 4 groups, one worse") if judged < 6 else ("gap of 8 groups",)


def outside(p: Predictions, metrics: Sequence[str], how: How | None = None) -> list[str]:
    """Sentences on the metrics whose intervals, over test cases like these, held the true value too seldom or too often.

    how: of their differences, or of a part of a result, instead; where differences are between two sets of patients, `p` is of the smaller
        set; for `sites` its cases have the site as their answer.
    """
    cohort, (patients, images) = cohort_of(p), size_of(p)
    table = cells() if how is None else {**cells_of_differences(), **cells_of_parts()}.get(how, {})
    measured = {m: _measured(table.get(cohort, {}).get(m.partition("/")[0], {}), images) for m in metrics}
    found = {m: v for m, of in measured.items() if (v := _nearest(of, patients)) is not None}
    like = f"of such test cases (simulated: {cohort}, {{}} patients with {'one image' if images == '1' else '1 to 10 images'} each)"
    lines = []
    for wrong, words in ((_low, "too seldom: take them for too narrow"), (_high, "more often than they say")):
        named = {m: v for m, v in found.items() if wrong(v[1])}
        if named:
            sizes = " or ".join(str(n) for n in sorted({n for n, _ in named.values()}))
            shares = ", ".join(f"{m} in {share:.1f} %" for m, (_, share) in named.items())
            lines.append(f"{SAID[how]} {like.format(sizes)} held the true value {words} ({shares})")
    # Of fewer than the floor a result says that intervals may be too narrow, whatever was simulated.
    unknown = [m for m, of in measured.items() if m not in found and patients <= FURTHEST * max(of, default=patients)]
    if unknown and patients >= PATIENTS:
        lines.append(
            f"{SAID[how]} of such test cases ({cohort}, {patients} patients, {images} images each) were not simulated for "
            f"{', '.join(unknown)}: how often they hold the true value is not known"
        )
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


def _measured(of_size: Mapping[str, float], images: str) -> dict[int, float]:
    """{patients: percent} of the sizes with so many images."""
    return {int(name.partition("x")[0]): share for name, share in of_size.items() if name.partition("x")[2] == images}


def _nearest(measured: Mapping[int, float], patients: int) -> tuple[int, float] | None:
    """(patients, percent) of the measured size that is nearest by its logarithm."""
    near = min(measured, key=lambda n: abs(math.log(n / max(patients, 1))), default=None)
    if near is None or abs(math.log(near / max(patients, 1))) > math.log(FURTHEST) + 1e-9:
        return None
    return near, measured[near]


def _low(share: float) -> bool:
    return share < WITHIN[0]


def _high(share: float) -> bool:
    return share > WITHIN[1]

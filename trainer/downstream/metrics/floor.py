"""How many test patients are too few to say which of two systems is better, and how many would do.

The floors are a convention, not a law: below ten patients on either side an area under a curve moves by more than a tenth with one of
them, and the bootstrap of so few knows few different resamples.
"""

from __future__ import annotations

import math

import numpy as np

from trainer.downstream.metrics import weighted
from trainer.downstream.metrics.kinds import PROBABILITIES
from trainer.downstream.metrics.predictions import Predictions

PATIENTS = 20
"""Test patients at least."""
A_SIDE = 10
"""Patients with, and patients without, of a yes-or-no question; patients with an event, of survival."""
POWER_Z = 1.959964 + 0.841621  # two-sided 5 %, power 80 %


def too_few(p: Predictions) -> str:
    """Why these test cases rank nothing, with the number that would be needed; "" where there are enough.

    Of several classes, labels or thresholds one with enough on both sides is enough.
    """
    known = p.known()
    patients = len(np.unique(known.patients_N))
    if patients < PATIENTS:
        return f"{patients} test patients, {PATIENTS} are needed to rank"
    if p.kind == "survival":
        events = len(np.unique(known.patients_N[known.target[:, 1] == 1]))
        return _scarce(events, patients, "an event")
    if p.kind in PROBABILITIES:
        smaller = max(_smaller_side(known, case_M, truth_M) for case_M, truth_M, _ in weighted.columns(known))
        return _scarce(smaller, patients, "the rarer answer")
    return ""


def narrow(p: Predictions) -> list[str]:
    """What to say of intervals over so few cases that nothing is ranked."""
    few = too_few(p)
    said = f"{few}; intervals of so few may be too narrow: in simulation they held the true value too seldom"
    return [said] if few else []


def _smaller_side(p: Predictions, case_M: np.ndarray, truth_M: np.ndarray) -> int:
    of_M = p.patients_N[case_M]
    return min(len(np.unique(of_M[truth_M])), len(np.unique(of_M[~truth_M])))


def _scarce(found: int, patients: int, what: str) -> str:
    if found >= A_SIDE:
        return ""
    likely = f", about {math.ceil(patients * A_SIDE / found)} patients at this share" if found else ""
    return f"{found} test patients with {what}, {A_SIDE} are needed to rank{likely}"


def patients_needed(difference: float, error: float, patients: int) -> int | None:
    """Test patients with which a difference of this size would be found with power 80 % at 5 %; None where it has no error or is 0.

    Args:
        error: standard deviation of the difference over resampled patients.
    """
    if not patients or not error > 0 or not abs(difference) > 0:
        return None
    return math.ceil(patients * (POWER_Z * error / abs(difference)) ** 2)

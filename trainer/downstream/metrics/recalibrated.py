"""What held-back cases say of how a system's scores are to be read: survival over time, and temperature. Never fitted on test cases.

Survival: the score as the one covariate of Cox's model on the validation split, with Breslow's baseline (van Houwelingen, Statistics in
Medicine 19, 2000, on validating a prognostic index). A system's loss says what ranks; its scores over training cases are too extreme to
give a baseline.

Temperature: one divisor of all log odds that makes the likelihood of the validation split largest (Guo and others, ICML 2017).

Shape letters: N cases, H horizons, K classes, labels or thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainer.downstream.metrics.calibration import LEAST, logit
from trainer.downstream.metrics.kinds import PROBABILITIES
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import entry
from trainer.downstream.metrics.validation_loss import validation_loss

CALIBRATED = ("brier", "ece", "calibration_intercept", "calibration_slope")
"""Metrics of a result that it holds both ways, of probabilities as they are and divided."""
STEEPEST = 20.0
"""Largest coefficient, in units of the score's deviation: without overlap the likelihood has no maximum."""
COLDEST, HOTTEST = 0.1, 10.0


@dataclass(frozen=True)
class Recalibration:
    """Of one seed, from so many validation cases.

    temperature    divisor of log odds; None: not asked for
    coefficient    of the score in Cox's model; None: no survival
    hazard_H       cumulative baseline hazard at each horizon, of a case whose score is 0
    bounded        what was fitted lies at the end of its range: the validation cases set it no limit
    """

    cases: int
    temperature: float | None = None
    coefficient: float | None = None
    hazard_H: tuple[float, ...] = ()
    bounded: bool = False

    def plain(self) -> dict[str, Any]:
        found: dict[str, Any] = {"cases": self.cases, "bounded": self.bounded}
        if self.temperature is not None:
            found["temperature"] = self.temperature
        if self.coefficient is not None:
            found |= {"coefficient": self.coefficient, "hazard": list(self.hazard_H)}
        return found


def of_plain(found: Mapping[str, Any]) -> Recalibration:
    """What `plain` wrote."""
    return Recalibration(
        found["cases"],
        found.get("temperature"),
        found.get("coefficient"),
        tuple(found.get("hazard", ())),
        found["bounded"],
    )


def recalibrated(val: Predictions) -> Recalibration:
    """From what was said of the validation split: of survival a baseline, of probabilities a temperature."""
    known = val.known()
    if val.kind == "survival":
        return _cox(known)
    assert val.kind in PROBABILITIES, f"a {val.kind} task says no probabilities"
    return _temperature(known)


# ------------------------------------------------------------------------------------------------------------------ survival


def _cox(p: Predictions) -> Recalibration:
    from scipy.optimize import minimize_scalar

    spread = float(p.score.std())
    coefficient, bounded = 0.0, False
    if spread > 0:
        z_N = (p.score - p.score.mean()) / spread
        found = minimize_scalar(
            lambda b: validation_loss(replace(p, score=b * z_N)), bounds=(-STEEPEST, STEEPEST), method="bounded",
            options={"xatol": 1e-9},
        )  # fmt: skip
        coefficient, bounded = float(found.x) / spread, bool(abs(found.x) > 0.99 * STEEPEST)
    return Recalibration(len(p), None, coefficient, _breslow(p, coefficient), bounded)


def _breslow(p: Predictions, coefficient: float) -> tuple[float, ...]:
    """Breslow's estimate (discussion of Cox 1972): at each time of events, events over the sum of risks still followed."""
    assert p.horizons_H is not None
    time_N, event_N = p.target[:, 0], p.target[:, 1] == 1
    log_risk_N = coefficient * p.score
    centre = float(log_risk_N.max(initial=0.0))
    order = np.argsort(-time_N, kind="stable")
    # With falling time the risk set of a case is all up to the last one of its own time.
    risk_N = np.cumsum(np.exp(log_risk_N[order] - centre))
    last_N = np.searchsorted(-time_N[order], -time_N[order], side="right") - 1
    step_N = np.where(event_N[order], np.exp(-centre) / risk_N[last_N], 0.0)
    return tuple(float(step_N[time_N[order] <= h].sum()) for h in p.horizons_H)


def with_survival(p: Predictions, fit: Recalibration) -> Predictions:
    """With the probability of each case to be without event beyond each horizon."""
    assert fit.coefficient is not None
    with np.errstate(over="ignore"):  # a hazard beyond all numbers is an event for sure
        risk_N = np.exp(fit.coefficient * p.score)
    hazard_H = np.array(fit.hazard_H)
    # 0 times infinity: before the first event nobody has had one.
    cumulative_NH = np.where(hazard_H > 0, risk_N[:, None] * np.where(hazard_H > 0, hazard_H, 1.0), 0.0)
    return replace(p, survival_NH=np.exp(-cumulative_NH))


def read_over_time(predictions: Sequence[Predictions], fits: Sequence[Recalibration]) -> Sequence[Predictions]:
    """Survival's predictions as each seed's fit reads them; all others, and those without fits, as they are."""
    if not fits or fits[0].coefficient is None:
        return predictions
    return [with_survival(p, f) for p, f in zip(predictions, fits, strict=True)]


# --------------------------------------------------------------------------------------------------------------- temperature


def with_temperature(p: Predictions, fit: Recalibration) -> Predictions:
    """With log odds divided; what is decided of binary answers, labels and classes stays as it was."""
    assert fit.temperature is not None
    return _divided(p, fit.temperature)


def _divided(p: Predictions, temperature: float) -> Predictions:
    from scipy.special import expit, softmax

    if p.kind == "multiclass":
        return replace(p, score=softmax(np.log(p.score.clip(LEAST)) / temperature, axis=1))
    score = expit(logit(p.score) / temperature)
    if p.kind == "ordinal":
        score[:, 0] = p.score[:, 0]  # at least the lowest grade: decides nothing, and no case says how sure that is
    return replace(p, score=score)


def _temperature(p: Predictions) -> Recalibration:
    from scipy.optimize import minimize_scalar

    ends = float(np.log(COLDEST)), float(np.log(HOTTEST))
    found = minimize_scalar(
        lambda log_t: validation_loss(_divided(p, float(np.exp(log_t)))),
        bounds=ends,
        method="bounded",
        options={"xatol": 1e-8},
    )
    bounded = min(found.x - ends[0], ends[1] - found.x) < 0.01
    return Recalibration(len(p), float(np.exp(found.x)), bounded=bool(bounded))


def calibrated_entry(
    predictions: Sequence[Predictions], fits: Sequence[Recalibration], metric: str, draws: int, seed: int, level: float
) -> dict[str, Any]:
    """What a result file holds of a metric of divided log odds; each seed has its own divisor."""
    return entry([with_temperature(p, f) for p, f in zip(predictions, fits, strict=True)], metric, draws, seed, level)


def bounded(fits: Sequence[Recalibration]) -> list[str]:
    """What to say of fits that lie at the end of their range."""
    n = sum(f.bounded for f in fits)
    why = "the validation cases set no limit to how sure the scores may be read (no overlap, or too few of them)"
    return [f"{n} of {len(fits)} seeds: {why}: calibrated numbers say little"] * bool(n)

"""Calibration finds what was planted: probabilities that are too extreme, too low, or right; and nothing is chosen by it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from tests.trainer.downstream.cohorts import make
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.task.read import parse_task
from trainer.downstream.trial import metric_names
from trainer.errors import UserError
from trainer.reporting.reliability import bins


def said(slope: float, shift: float, n: int = 40_000) -> dict[str, float]:
    """Metrics where the true log odds are `shift` + `slope` times what a system says."""
    rng = np.random.default_rng(7)
    x_N = rng.normal(0, 1.5, n)
    p = make("binary", rng.random(n) < expit(shift + slope * x_N), expit(x_N))
    return {m: METRICS[m].compute(p) for m in ("calibration_intercept", "calibration_slope", "ece", "brier")}


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.5, 0.0), (2.0, 0.0), (1.0, 0.7), (1.0, -1.5)])
def test_what_was_planted_is_found(slope: float, shift: float) -> None:
    found = said(slope, shift)
    assert found["calibration_slope"] == pytest.approx(slope, abs=0.05)
    if slope == 1:
        assert found["calibration_intercept"] == pytest.approx(shift, abs=0.05)
    assert (found["ece"] < 0.01) == ((slope, shift) == (1.0, 0.0))
    assert found["brier"] >= said(1.0, 0.0)["brier"] - 0.01 or slope == 2.0


@pytest.mark.parametrize("extreme", [1e-7, 1e-3, 0.2])
def test_the_fit_arrives_from_far_away(extreme: float) -> None:
    """Two scores alone: the slope is the ratio of the log odds' differences, in closed form."""
    truth_N = np.r_[np.arange(10) < 9, np.arange(10) < 2]
    p = make("binary", truth_N, np.r_[np.full(10, 1 - extreme), np.full(10, extreme)])
    exact = (logit(0.9) - logit(0.2)) / (2 * logit(1 - extreme))
    assert METRICS["calibration_slope"].compute(p) == pytest.approx(exact, rel=1e-8)


def test_bins_of_the_picture_are_those_of_the_error() -> None:
    p = make("binary", [1, 0, 1, 0], [1.0, 0.1, 0.95, 0.05])
    said_B, happened_B, count_B = bins([p])
    assert said_B == pytest.approx([0.05, 0.1, 0.975])
    assert happened_B.tolist() == [0, 0, 1]
    assert count_B.tolist() == [1, 1, 2]
    assert METRICS["ece"].compute(p) == pytest.approx((np.abs(said_B - happened_B) * count_B).sum() / 4)


def test_nothing_is_chosen_by_what_has_a_best_value() -> None:
    task = {"name": "own", "kind": "binary", "label": "y", "metrics": ["calibration_slope"]}
    assert metric_names(parse_task(task)) == ["auc", "calibration_slope"]
    with pytest.raises(UserError, match="not which system is better"):
        metric_names(parse_task(task | {"metric": "calibration_slope"}))

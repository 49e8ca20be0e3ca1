"""Survival metrics equal scikit-survival's on random cohorts: ties, few events, one event, everybody censored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import METRICS

SETS = 200


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip("sksurv.metrics", reason="scikit-survival is not installed: pip install -e .[test]")


def cohort(number: int) -> Predictions:
    """A cohort of its own size, censoring and coarseness; every tenth has one event, every twentieth none."""
    rng = np.random.default_rng(number)
    n = int(rng.integers(12, 80))
    risk_N = np.round(rng.normal(size=n), int(rng.integers(0, 3)))
    time_N = rng.exponential(np.exp(-risk_N) * 20) + 0.1
    time_N = np.ceil(time_N) if number % 2 else time_N
    event_N = rng.random(n) < rng.uniform(0.2, 0.9)
    if number % 10 == 0:
        event_N[:] = False
        event_N[int(np.argsort(time_N)[n // 3])] = number % 20 != 0
    inside = np.unique(np.quantile(time_N, [0.2, 0.4, 0.6, 0.8]))
    inside = inside[(inside > time_N.min()) & (inside < time_N.max())]
    said_N = np.round(risk_N + rng.normal(size=n), int(rng.integers(0, 3)))
    names_N = np.array([f"p{i}" for i in range(n)])
    return Predictions("survival", names_N, names_N, np.stack([time_N, event_N], 1), said_N, horizons_H=inside)


def structured(p: Predictions) -> np.ndarray:
    rows = [(bool(e), t) for t, e in p.target]
    return np.array(rows, dtype=[("event", bool), ("time", float)])


def harrell(peer: Any, p: Predictions) -> float:
    return peer.concordance_index_censored(p.target[:, 1] == 1, p.target[:, 0], p.score)[0]


def uno(peer: Any, p: Predictions) -> float:
    assert p.horizons_H is not None
    return peer.concordance_index_ipcw(structured(p), structured(p), p.score, tau=p.horizons_H[-1])[0]


def over_time(peer: Any, p: Predictions) -> float:
    return peer.cumulative_dynamic_auc(structured(p), structured(p), p.score, p.horizons_H)[1]


@pytest.mark.parametrize(
    ("name", "of", "least"), [("c_index", harrell, 185), ("c_uno", uno, 150), ("time_auc", over_time, 100)]
)
def test_equals_scikit_survival(peer: Any, name: str, of: Any, least: int) -> None:
    compared = 0
    for number in range(SETS):
        p = cohort(number)
        ours = METRICS[name].compute(p)
        try:
            with np.errstate(all="ignore"):
                theirs = of(peer, p)
        except (ValueError, peer.NoComparablePairException):
            # It refuses all cases where one beyond the last horizon cannot be weighed; areas by then are known all the same.
            assert np.isnan(ours) or name == "time_auc", number
            continue
        if np.isnan(theirs):  # a time without cases or controls: ours is the mean over the others
            continue
        assert ours == pytest.approx(theirs, abs=1e-6), number
        compared += 1
    assert compared >= least


def test_everybody_censored_has_no_value() -> None:
    p = cohort(20)
    assert not p.target[:, 1].any()
    assert all(np.isnan(METRICS[name].compute(p)) for name in ("c_index", "c_uno", "time_auc"))


def test_predictions_without_horizons_are_asked_for_them() -> None:
    p = cohort(1)
    bare = Predictions("survival", p.keys_N, p.patients_N, p.target, p.score)
    with pytest.raises(AssertionError, match="horizons_H"):
        METRICS["c_uno"].compute(bare)
    with pytest.raises(AssertionError, match="rising"):
        Predictions("survival", p.keys_N, p.patients_N, p.target, p.score, horizons_H=np.array([2.0, 1.0]))

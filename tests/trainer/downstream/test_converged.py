"""Probes at their optimum equal scikit-learn's and lifelines', whatever the seed; what a few epochs make of few samples does not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from trainer.downstream.probes.converged import DECAYS, fit_converged
from trainer.downstream.probes.linear import fit_linear, make_grid, moments
from trainer.downstream.probes.run import solver
from trainer.downstream.task.read import parse_task
from trainer.errors import UserError

N, D = 60, 8


def data(kind: str, n: int = N, d: int = D, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, d, seed])
    x_ND = (rng.normal(size=(n, d)) * np.linspace(0.1, 5, d) + np.arange(d)).astype(np.float32)
    s_N = (x_ND[:, 0] - x_ND[:, 0].mean()) / x_ND[:, 0].std() + rng.normal(size=n)
    if kind == "multiclass":
        return x_ND, np.digitize(s_N, [-0.5, 0.5])
    if kind == "regression":
        return x_ND, 60 + 12 * s_N
    if kind == "survival":
        time_N = rng.exponential(np.exp(-s_N))
        return x_ND, np.stack([time_N, rng.random(n) < 0.7], 1).astype(float)
    if kind == "multilabel":
        y_NK = np.stack([s_N > 0, s_N + rng.normal(size=n) > 0.5], 1).astype(float)
        y_NK[::5, 0] = np.nan
        return x_ND, y_NK
    return x_ND, (s_N > 0.3).astype(float)


def standardised(x_ND: np.ndarray) -> np.ndarray:
    import torch

    mean_D, std_D = (t.numpy().astype(float) for t in moments(torch.from_numpy(x_ND)))
    return (x_ND - mean_D) / std_D


def last() -> Callable[[np.ndarray, np.ndarray], float]:
    """Likes each later answer better: the last and weakest decay is taken."""
    seen = iter(range(1000))
    return lambda s, y: float(next(seen))


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
@pytest.mark.parametrize("decay", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("d", [D, 200])
def test_classes_are_scikit_learns(kind: str, decay: float, d: int) -> None:
    """With more features than samples too: there the optimum lies in the span of the samples."""
    x_ND, y = data(kind, d=d)
    model = LogisticRegression(C=1 / (N * decay), max_iter=20_000, tol=1e-10).fit(standardised(x_ND), y)
    expected = model.predict_proba(standardised(x_ND))
    found = fit_converged(kind, x_ND, y, x_ND, y, score=last(), decays=[decay])
    got = found.predict(x_ND)
    np.testing.assert_allclose(got if kind == "multiclass" else np.stack([1 - got, got], 1), expected, atol=2e-5)
    if kind == "binary":
        np.testing.assert_allclose(found.weight, model.coef_, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found.bias, model.intercept_, rtol=1e-3, atol=1e-5)


def test_each_label_is_a_regression_of_its_own() -> None:
    x_ND, y_NK = data("multilabel")
    got_NK = fit_converged("multilabel", x_ND, y_NK, x_ND, y_NK, score=last(), decays=[0.05]).predict(x_ND)
    for k in range(2):
        known = ~np.isnan(y_NK[:, k])
        model = LogisticRegression(C=1 / (known.sum() * 0.05), max_iter=20_000, tol=1e-10)
        model.fit(standardised(x_ND)[known], y_NK[known, k])
        np.testing.assert_allclose(got_NK[:, k], model.predict_proba(standardised(x_ND))[:, 1], atol=2e-5)


def test_balanced_classes_are_scikit_learns() -> None:
    x_ND, y = data("binary")
    model = LogisticRegression(C=1 / (N * 0.05), class_weight="balanced", max_iter=20_000, tol=1e-10)
    expected = model.fit(standardised(x_ND), y).predict_proba(standardised(x_ND))[:, 1]
    found = fit_converged("binary", x_ND, y, x_ND, y, score=last(), decays=[0.05], class_weights="balanced")
    np.testing.assert_allclose(found.predict(x_ND), expected, atol=2e-5)


def test_a_number_is_ridge_regression() -> None:
    x_ND, y = data("regression")
    # Half of our penalty on half of their squared error, on targets in units of their deviation.
    expected = Ridge(alpha=N * 0.3 / 2).fit(standardised(x_ND), y).predict(standardised(x_ND))
    got = fit_converged("regression", x_ND, y, x_ND, y, score=last(), decays=[0.3]).predict(x_ND)
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_survival_is_lifelines() -> None:
    """The same penalised partial likelihood: theirs a case, ours an event, and both scale the features alike."""
    from lifelines import CoxPHFitter

    x_ND, y = data("survival")
    events, decay = y[:, 1].sum(), 0.2
    frame = pd.DataFrame(standardised(x_ND)).add_prefix("x").assign(time=y[:, 0], event=y[:, 1])
    model = CoxPHFitter(penalizer=decay * events / N).fit(frame, "time", "event")
    found = fit_converged("survival", x_ND, y, x_ND, y, score=last(), decays=[decay])
    np.testing.assert_allclose(found.weight[0], model.params_.to_numpy(), rtol=0.03, atol=2e-3)


def test_few_samples_and_few_epochs_against_the_optimum() -> None:
    """20 epochs of a small rate: the ranking is right, the threshold is not, and all cases fall on one side of it."""
    x_ND, y = data("binary", n=80, d=30, seed=4)
    v_ND, w = data("binary", n=80, d=30, seed=5)
    y, w = ((x[:, 0] > np.quantile(x[:, 0], 0.4)).astype(float) for x in (x_ND, v_ND))

    def auc(s: np.ndarray, t: np.ndarray) -> float:
        return roc_auc_score(t, s)

    short = fit_linear("binary", x_ND, y, v_ND, w, score=auc, grid=make_grid((1e-4,)), epochs=20, batch=16)
    assert len(np.unique(short.predict(v_ND) > 0.5)) == 1
    found = fit_converged("binary", x_ND, y, v_ND, w, score=auc)
    z_ND, u_ND = standardised(x_ND), (v_ND - x_ND.mean(0)) / x_ND.std(0)
    models = [LogisticRegression(C=1 / (80 * decay), max_iter=5000).fit(z_ND, y) for decay in DECAYS]
    expected = max(roc_auc_score(w, m.decision_function(u_ND)) for m in models)
    assert found.val == pytest.approx(expected, abs=1e-3)
    assert ((found.predict(v_ND) > 0.5) == w).mean() > 0.8


def test_ties_go_to_the_smaller_loss_and_then_to_the_stronger_decay() -> None:
    x_ND, y = data("binary")
    flat = {"score": lambda s, t: 0.5, "decays": [0.1, 1.0, 10.0]}
    assert fit_converged("binary", x_ND, y, x_ND, y, **flat).weight_decay == 10
    found = fit_converged("binary", x_ND, y, x_ND, y, loss=lambda s, t: float(-np.ptp(s)), **flat)
    assert found.weight_decay == 0.1, "the scores that reach furthest were called the smallest loss"
    assert [r["weight_decay"] for r in found.grid_values] == [10, 1, 0.1]
    assert (found.lr, found.epoch) == (None, None)
    assert all(r["gradient"] < 1e-5 for r in found.grid_values)


def test_separable_classes_and_what_is_refused() -> None:
    x_ND, _ = data("binary")
    y = (x_ND[:, 0] > np.median(x_ND[:, 0])).astype(float)
    found = fit_converged("binary", x_ND, y, x_ND, y, score=lambda s, t: roc_auc_score(t, s))
    assert found.val == 1
    for decays in ([0.0, 1.0], [], [math.inf], [-1.0]):
        with pytest.raises(UserError, match="needs values above 0"):
            fit_converged("binary", x_ND, y, x_ND, y, score=lambda s, t: 0.0, decays=decays)
    with pytest.raises(UserError, match="no value on the validation split"):
        fit_converged("binary", x_ND, y, x_ND, y, score=lambda s, t: math.nan)


def test_which_solver_is_taken() -> None:
    def of(samples: int, **protocol: object) -> str:
        return solver(
            parse_task({"name": "t", "kind": "binary", "label": "x", "mode": "linear", "protocol": protocol}), samples
        )

    assert [of(5_000), of(5_001)] == ["converged", "epochs"]
    assert of(10, weight_decays=[0, 0.1]) == "epochs"
    assert of(10**6, solver="converged") == "converged"
    with pytest.raises(UserError, match="0 has no optimum where a plane parts the classes"):
        of(10, solver="converged", weight_decays=0)
    with pytest.raises(UserError, match=r"weight_decays: \[\]: give one or more"):
        of(10, weight_decays=[])

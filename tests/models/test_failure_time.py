"""Accelerated failure time: SciPy's densities of log time, and fits that a library finds, too."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import gumbel_l, logistic

from models.contract import TargetSpec
from models.losses.failure_time import WIDEST, failure_time_nll, failure_time_risk
from models.losses.finetune import of_kind, survival_risk

PEERS = {"weibull": gumbel_l, "log_logistic": logistic}
TIMES = torch.tensor([[0.5, 1], [2.0, 1], [4.9, 0], [9.0, 0], [30, 1], [0.01, 0]])


@pytest.mark.parametrize("distribution", ["weibull", "log_logistic"])
def test_the_likelihood_is_that_of_log_time(distribution):
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    mu, sigma = x[:, 0].numpy(), np.exp(WIDEST * np.tanh(x[:, 1].numpy() / WIDEST))
    z = (np.log(TIMES[:, 0].numpy()) - 1.0) / 2.0
    peer = PEERS[distribution](mu, sigma)
    each = -np.where(TIMES[:, 1] > 0, peer.logpdf(z), peer.logsf(z))
    weight = torch.tensor([1.0, 1, 1, 0, 1, 1])
    found = failure_time_nll(x, TIMES, weight, distribution, (1.0, 2.0))
    assert found.item() == pytest.approx(float((each * weight.numpy()).sum() / 5), rel=1e-5)
    asked = TargetSpec("survival", 2, (), distribution=distribution, log_time=(1.0, 2.0))
    assert of_kind(asked, x, TIMES, weight).item() == found.item()
    assert survival_risk(asked, x).numpy() == pytest.approx(-peer.median(), rel=1e-5)
    assert (asked.compares, asked.names) == (False, ("location", "log scale"))


@pytest.mark.parametrize("distribution", ["weibull", "log_logistic"])
def test_what_is_unknown_is_left_out_and_far_samples_stay_finite(distribution):
    x = torch.tensor([[-500.0, -9.0], [0.0, 0.0], [500.0, 9.0]], requires_grad=True)
    target = torch.tensor([[3.0, 1], [math.nan, 1], [1.0, 1]])
    loss = failure_time_nll(x, target, torch.ones(3), distribution)
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    assert not x.grad[1].any()
    assert failure_time_nll(x, torch.full((3, 2), math.nan), torch.ones(3), distribution).item() == 0


@pytest.mark.parametrize(
    ("distribution", "fitter"), [("weibull", "WeibullFitter"), ("log_logistic", "LogLogisticFitter")]
)
def test_its_optimum_is_lifelines(distribution, fitter):
    lifelines = pytest.importorskip("lifelines")
    rng = np.random.default_rng(0)
    time, end = 5 * rng.weibull(1.7, 200), rng.uniform(1, 10, 200)
    target = torch.tensor(np.stack([np.minimum(time, end), time <= end], 1))
    x = torch.zeros(1, 2, requires_grad=True)
    optimizer = torch.optim.LBFGS([x], max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = failure_time_nll(x.expand(200, 2), target, torch.ones(200), distribution)
        loss.backward()
        return loss

    optimizer.step(closure)
    peer = getattr(lifelines, fitter)().fit(target[:, 0].numpy(), target[:, 1].numpy())
    scale, shape = (peer.lambda_, peer.rho_) if distribution == "weibull" else (peer.alpha_, peer.beta_)
    mu, raw = x[0].tolist()
    assert math.exp(mu) == pytest.approx(scale, rel=1e-3)
    assert math.exp(-WIDEST * math.tanh(raw / WIDEST)) == pytest.approx(shape, rel=1e-3)
    assert failure_time_risk(x, distribution).item() == pytest.approx(-math.log(peer.median_survival_time_), abs=2e-3)

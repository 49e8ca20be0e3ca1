"""Survival in intervals of time, product by product, and what a fine-tune makes of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import slides
import torch

from models.contract import TargetSpec
from models.losses.survival import interval_of, intervals_nll, intervals_risk

EDGES = (2.0, 5.0, 9.0)


def literal(logits, time, event, alpha=0.0):
    h = [1 / (1 + math.exp(-v)) for v in logits]
    y = sum(time >= e for e in EDGES)
    survived = [math.prod(1 - v for v in h[: k + 1]) for k in range(4)]
    before = survived[y - 1] if y else 1.0
    loss = -math.log(before) - math.log(h[y]) if event else -math.log(survived[y])
    return loss if event else (1 - alpha) * loss


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_the_likelihood_is_that_of_surviving_and_then_not(alpha):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[0.5, 1], [2.0, 1], [4.9, 0], [9.0, 0], [30, 1], [0, 0]])
    each = [literal(v.tolist(), *t.tolist(), alpha) for v, t in zip(x, target, strict=True)]
    for i, wanted in enumerate(each):
        found = intervals_nll(x[i : i + 1], target[i : i + 1], torch.ones(1), EDGES, alpha)
        assert found.item() == pytest.approx(wanted, rel=1e-5), i
    weight = torch.tensor([1.0, 1, 1, 0, 1, 1])
    found = intervals_nll(x, target, weight, EDGES, alpha)
    assert found.item() == pytest.approx(sum(e for i, e in enumerate(each) if i != 3) / 5, rel=1e-5)


def test_an_edge_belongs_to_the_later_interval():
    assert interval_of(torch.tensor([0.0, 1.99, 2.0, 5.0, 9.0, 1e9]), EDGES).tolist() == [0, 0, 1, 2, 3, 3]


def test_what_is_unknown_is_left_out_and_large_logits_stay_finite():
    x = torch.tensor([[200.0, -200, 0, 0], [0.0, 0, 0, 0]], requires_grad=True)
    for target in ([[3.0, 1], [math.nan, 1]], [[3.0, 1], [1.0, math.nan]]):
        loss = intervals_nll(x, torch.tensor(target), torch.ones(2), EDGES)
        assert loss.item() == pytest.approx(400, rel=1e-5)
        x.grad = None
        loss.backward()
        assert x.grad.isfinite().all()
        assert not x.grad[1].any()
    assert intervals_nll(x, torch.full((2, 2), math.nan), torch.ones(2), EDGES).item() == 0


def test_higher_risk_is_the_earlier_death():
    early, late = [3.0, 0, 0, 0], [-3.0, -3, -3, -3]
    risk = intervals_risk(torch.tensor([early, late]))
    assert risk[0] > risk[1]
    h = [1 / (1 + math.exp(-v)) for v in late]
    assert risk[1].item() == pytest.approx(-sum(math.prod(1 - v for v in h[: k + 1]) for k in range(4)), rel=1e-5)


@pytest.mark.parametrize("system", ["porpoise", "dsmil", "clam"])
def test_every_system_learns_it_and_reports_one_risk(system):
    asked = TargetSpec("survival", 4, (), edges=EDGES)
    model = slides.tuned(slides.build(system), asked)
    batch = slides.batch_of(slides.bags((4, 3, 2)))
    batch["target"] = torch.tensor([[1.0, 1], [6, 0], [12, 1]])
    terms, _ = slides.losses(model, batch)
    logits = model.logits(batch)[0]
    assert logits.shape == (3, 4)
    torch.testing.assert_close(terms["task"], intervals_nll(logits, batch["target"], torch.ones(3), EDGES).detach())
    torch.testing.assert_close(model.scores(batch)[0], intervals_risk(logits))
    assert not model.stages()[0].compares, "a mean over samples may be accumulated"
    assert slides.tuned(slides.build(system), TargetSpec("survival", 1, ())).stages()[0].compares


@pytest.mark.real
def test_published_losses_on_the_same_hazards(real_data: Path):
    gold = slides.golden(real_data, "porpoise")
    found = [k for k in gold.numbers if "/nll/y" in k and "grad" not in k]
    assert found
    for key in found:
        run, y, censored = key.split("/nll/")[0], int(key[-3]), int(key[-1])
        logits = torch.from_numpy(gold.numbers[f"{run}/logits"]).reshape(1, 4)
        target = torch.tensor([[float(y), 1.0 - censored]])
        gold.equal(intervals_nll(logits, target, torch.ones(1), (1.0, 2.0, 3.0)), key)
        gold.equal(intervals_risk(logits), f"{run}/risk")

"""RAdam inside Lookahead against both papers, number by number, and where it is refused."""

from __future__ import annotations

import math

import pytest
import torch

from models.contract import Group
from trainer.config.schema import Optim, parse
from trainer.downstream.task.read import build_task
from trainer.engine.optimizers import make_optimizer
from trainer.errors import UserError

LR, DECAY, BETAS = 0.05, 0.3, (0.9, 0.99)


def gradient(t: int) -> torch.Tensor:
    return torch.randn(3, generator=torch.Generator().manual_seed(t), dtype=torch.float64)


def literal(w: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """Weights after every update, element by element: Liu et al. 2020, algorithm 2, with decoupled decay, and slow weights on top."""
    m, v, slow, out = torch.zeros(3).double(), torch.zeros(3).double(), None, []
    longest = 2 / (1 - BETAS[1]) - 1
    for t in range(1, steps + 1):
        g = gradient(t)
        w = w * (1 - LR * DECAY)
        m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g * g
        length = longest - 2 * t * BETAS[1] ** t / (1 - BETAS[1] ** t)
        step = m / (1 - BETAS[0] ** t)
        if length > 5:
            r = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
            step = r * step * math.sqrt(1 - BETAS[1] ** t) / (v.sqrt() + 1e-8)
        w = w - LR * step
        if t % 6 == 0:
            slow = w if slow is None else slow + 0.5 * (w - slow)
            w = slow
        out.append(w)
    return out


def made(p: torch.nn.Parameter) -> torch.optim.Optimizer:
    optim = Optim(kind="radam_lookahead", lr=LR, weight_decay=DECAY, betas=BETAS)
    return make_optimizer([Group("one", [p])], optim, fused=False)


def test_it_is_both_papers_and_goes_on_from_what_a_checkpoint_holds() -> None:
    start = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    p = torch.nn.Parameter(start.clone())
    optimizer = made(p)
    for t, wanted in enumerate(literal(start, 20), 1):
        p.grad = gradient(t)
        optimizer.step()
        torch.testing.assert_close(p.detach(), wanted, rtol=1e-9, atol=1e-12, msg=f"update {t}")
        if t in (4, 6, 14):
            p, kept = torch.nn.Parameter(p.detach().clone()), optimizer.state_dict()
            optimizer = made(p)
            optimizer.load_state_dict(kept)


def test_weights_without_gradient_stay() -> None:
    p, q = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optim = Optim(kind="radam_lookahead")
    optimizer = make_optimizer([Group("both", [p, q])], optim, fused=False)
    for _ in range(13):
        p.grad = torch.ones(2)
        optimizer.step()
    assert q.tolist() == [1, 1]
    assert (p < 1).all()


@pytest.mark.parametrize("given", [{"zero": {"stage": 1}}, {"zero": {"stage": 0}, "precision": "fp16"}])
def test_what_shards_or_rounds_weights_is_refused_by_pre_training(given) -> None:
    with pytest.raises(UserError, match=r"optim\.kind=radam_lookahead .* set zero\.stage=0 and precision=fp32"):
        parse({"method_name": "gimp", "optim": {"kind": "radam_lookahead"}, **given})
    stage = {"stages": {"pretrain": {"optim": {"kind": "radam_lookahead"}}}}
    with pytest.raises(UserError, match=r"stages\.pretrain\.optim\.kind=radam_lookahead"):
        parse({"method_name": "gimp", **stage, **given})
    parse({"method_name": "gimp", **stage, "zero": {"stage": 0}})


def test_what_shards_weights_is_refused_by_a_task() -> None:
    words = ["protocol.optimizer=radam_lookahead"]
    with pytest.raises(UserError, match=r"protocol\.optimizer=radam_lookahead with zero\.stage=1"):
        build_task("demo_subtype", words)
    task, _ = build_task("demo_subtype", [*words, "zero.stage=0"])
    assert task.protocol.optimizer == "radam_lookahead"

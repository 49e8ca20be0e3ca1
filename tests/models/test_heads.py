"""Heads of downstream tasks."""

from __future__ import annotations

import math

import pytest
import torch
from synthetic import build

from models.contract import Encoded, HeadOutput, TargetSpec
from models.finetuned import make_head
from models.heads.gated_attention import BagHead
from models.heads.linear import LinearHead
from models.heads.mlp import MLPHead


def counted(module) -> int:
    return sum(p.numel() for p in module.parameters())


def bags(B=3, L=7, D=6, seed=0):
    tokens = torch.randn(B, L, D, generator=torch.Generator().manual_seed(seed))
    return tokens, torch.arange(L) < torch.tensor([L, 4, 1])[:B, None]


@pytest.mark.parametrize(
    ("head", "parameters"),
    [
        (LinearHead(10, 3, norm=True), 2 * 10 + 10 * 3 + 3),
        (LinearHead(10, 3, norm=False), 10 * 3 + 3),
        (MLPHead(1024, 2), 1024 * 512 + 512 + 512 * 2 + 2),
        (BagHead(10, 3), 2 * (10 * 128 + 128) + 128 + 1 + 10 * 3 + 3),
    ],
)
def test_parameters_are_counted_and_all_learn(head, parameters):
    assert counted(head) == parameters
    torch.manual_seed(0)
    tokens, mask = torch.randn(4, 5, 10), torch.rand(4, 5) < 0.7
    out = head(Encoded(tokens, mask, torch.randn(4, 1024 if isinstance(head, MLPHead) else 10))).logits
    assert out.shape == (4, 2 if isinstance(head, MLPHead) else 3)
    out.square().sum().backward()
    # All tokens' scores may shift together: the score's bias is the one parameter without an effect.
    grads = {n: p.grad for n, p in head.named_parameters() if n != "weigh.bias"}
    assert all(g.isfinite().all() and g.any() for g in grads.values())


def test_linear_head_is_its_formula_and_starts_at_chance():
    torch.manual_seed(0)
    head, x = LinearHead(8, 5), torch.randn(4, 8) * 100 + 30
    z = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(head.score(x), z @ head.out.weight.T + head.out.bias, rtol=1e-4, atol=1e-8)
    assert 0 < head.score(x).abs().max() < 1e-3, "all logits equal but for the weights' deviation of 2e-5"
    assert head.out.weight.abs().max() <= 4e-5
    assert LinearHead(8, 5, std=0.02).out.weight.std() > 0.005


def test_mlp_head_drops_in_training_only():
    torch.manual_seed(0)
    head, x = MLPHead(8, 2), torch.randn(4, 8)
    assert not torch.equal(head.score(x), head.score(x))
    head.eval()
    hidden = (x @ head.fc1.weight.T + head.fc1.bias).clamp_min(0)
    torch.testing.assert_close(head.score(x), hidden @ head.fc2.weight.T + head.fc2.bias)


def test_bag_head_is_equation_9_of_ilse():
    torch.manual_seed(0)
    head = BagHead(6, 2, hidden=4)
    tokens, mask = bags()
    for b in range(3):
        h = tokens[b][mask[b]].double()
        v, u = (m.weight.double() @ h.T + m.bias.double()[:, None] for m in (head.tanh, head.gate))
        e = [
            math.exp((head.weigh.weight.double()[0] @ (v[:, i].tanh() * u[:, i].sigmoid())).item())
            for i in range(len(h))
        ]
        a = torch.tensor(e) / sum(e)
        torch.testing.assert_close(head.attention(tokens, mask)[b][mask[b]], a, rtol=1e-5, atol=1e-6)
        want = head.out((a[:, None] * h.float()).sum(0))
        torch.testing.assert_close(head.score(tokens, mask)[b], want, rtol=1e-5, atol=1e-6)


def test_bag_head_ignores_padding_and_order():
    torch.manual_seed(0)
    head = BagHead(6, 2)
    tokens, mask = bags()
    want = head.score(tokens, mask)
    spoilt = tokens.masked_fill(~mask[..., None], torch.nan)
    torch.testing.assert_close(head.score(spoilt, mask), want)
    order = torch.randperm(7)
    torch.testing.assert_close(head.score(tokens[:, order], mask[:, order]), want)
    torch.testing.assert_close(head.score(tokens[1:2, :4], mask[1:2, :4]), want[1:2])


def test_a_bag_without_tokens_gives_the_bias_and_no_nan():
    head = BagHead(6, 2)
    tokens, mask = bags()
    tokens.requires_grad_()
    mask[1] = False
    out = head.score(tokens, mask)
    torch.testing.assert_close(out[1], head.out.bias)
    out.square().sum().backward()
    assert tokens.grad.isfinite().all()
    assert not tokens.grad[1].any()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_bag_head_in_half_precision():
    torch.manual_seed(0)
    head = BagHead(6, 2)
    tokens, mask = bags()
    want = head.score(tokens, mask)
    got = head.bfloat16().score(tokens.bfloat16(), mask)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.02)


def test_terms_of_a_head_enter_the_total_with_their_weights():
    task, own = torch.tensor(2.0), torch.tensor(3.0, requires_grad=True)
    said = HeadOutput(torch.zeros(2, 1), {"instance": own}, {"instance": 0.3}, task_weight=0.7)
    terms, total = said.losses(task)
    assert list(terms) == ["task", "instance"]
    torch.testing.assert_close(total, torch.tensor(0.7 * 2 + 0.3 * 3))
    assert HeadOutput(torch.zeros(2, 1)).losses(task)[1] is task
    with pytest.raises(AssertionError):
        HeadOutput(torch.zeros(2, 1), {"instance": own}, {})


def test_a_methods_own_head_is_what_auto_means():
    asked, sizes = TargetSpec("binary", 1, ("no", "yes")), {"norm": True, "hidden": 8, "dropout": 0.1}
    assert isinstance(make_head(build("gimp"), asked, 32, 16, head="auto", **sizes), MLPHead)
    assert isinstance(make_head(build("mgi"), asked, 32, 16, head="auto", **sizes), LinearHead)
    for name, kind in (("linear", LinearHead), ("mlp", MLPHead), ("bag", BagHead)):
        assert isinstance(make_head(build("gimp"), asked, 32, 16, head=name, **sizes), kind)

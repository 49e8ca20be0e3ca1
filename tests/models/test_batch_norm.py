"""Batch norm that knows padding: torch's on one rank without it, and torch's of the counted samples with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import GlobalCnn

from models.contract import Stage
from models.layers.batch_norm import GlobalBatchNorm1d, GlobalBatchNorm2d, counted, globalised, holds_batch_norm
from trainer.config.schema import parse
from trainer.errors import UserError
from trainer.pretrain import prepare


def pair(kind: str, **options) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    theirs, ours = (nn.BatchNorm1d, GlobalBatchNorm1d) if kind != "2d" else (nn.BatchNorm2d, GlobalBatchNorm2d)
    a, b = theirs(5, **options), ours(5, **options)
    if a.affine:
        nn.init.normal_(a.weight)
        nn.init.normal_(a.bias)
    b.load_state_dict(a.state_dict())
    return a, b


def values(kind: str, n: int = 6) -> torch.Tensor:
    shape = {"1d": (n, 5), "1d long": (n, 5, 7), "2d": (n, 5, 3, 4)}[kind]
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 100


@pytest.mark.parametrize("kind", ["1d", "1d long", "2d"])
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_alone_it_is_torchs(kind, options):
    a, b = pair(kind, **options)
    for _ in range(3):
        x = values(kind).requires_grad_()
        y = x.detach().clone().requires_grad_()
        out, ours = a(x), b(y)
        torch.testing.assert_close(ours, out, rtol=1e-4, atol=1e-4)
        weigh = torch.randn_like(out)
        (out * weigh).sum().backward()
        (ours * weigh).sum().backward()
        torch.testing.assert_close(y.grad, x.grad, rtol=1e-3, atol=1e-5)
    for name, value in a.named_buffers():
        torch.testing.assert_close(b.get_buffer(name), value, msg=name)
    torch.testing.assert_close(b.eval()(values(kind)), a.eval()(values(kind)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["1d", "1d long", "2d"])
def test_samples_that_do_not_count_change_nothing(kind):
    a, b = pair(kind)
    x = values(kind)
    x[[1, 4]] = float("nan")
    on = torch.tensor([1.0, 0, 1, 1, 0, 1])
    with counted(on):
        ours = b(x)
    theirs = a(x[on > 0])
    torch.testing.assert_close(ours[on > 0], theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(b.running_var, a.running_var)


def test_a_batch_of_one_is_refused_and_one_that_is_not_finite_leaves_the_running_numbers():
    _, b = pair("1d")
    with pytest.raises(ValueError, match="larger global_batch"), counted(torch.tensor([1.0, 0, 0, 0, 0, 0])):
        b(values("1d"))
    before = b.running_mean.clone()
    b(values("1d") * float("inf"))
    assert torch.equal(b.running_mean, before)
    assert int(b.num_batches_tracked) == 0


def test_half_precision_keeps_the_variance():
    _, b = pair("2d")
    x = values("2d", 16)
    exact = b(x)
    assert (b(x.bfloat16().float()) - b(x.bfloat16()).float()).abs().max() < 0.05
    assert exact.dtype == torch.float32


@pytest.mark.parametrize("running", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_weights_and_running_numbers_may_differ_in_precision(weights, running):
    """As engines hold them in half precision; in evaluation too."""
    _, b = pair("2d")
    x = values("2d") - 100
    b(x)
    exact = b.eval()(x)
    b.weight.data, b.bias.data = b.weight.data.to(weights), b.bias.data.to(weights)
    b.running_mean, b.running_var = b.running_mean.to(running), b.running_var.to(running)
    half = b(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.03, atol=0.03)


def test_every_plain_one_is_replaced_with_its_weights():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)))
    net[1].running_mean += 2
    state = {k: v.clone() for k, v in net.state_dict().items()}
    made = globalised(net)
    assert [type(m) for m in (made[1], made[2][1])] == [GlobalBatchNorm2d, GlobalBatchNorm1d]
    assert all(torch.equal(v, made.state_dict()[k]) for k, v in state.items())
    assert holds_batch_norm(made)
    assert not holds_batch_norm(made.requires_grad_(False))
    assert isinstance(globalised(nn.BatchNorm1d(3)), GlobalBatchNorm1d)


def test_accumulation_is_refused_where_batch_statistics_are_taken(demo_cohort, tmp_path, monkeypatch):
    """Two halves of a batch have other statistics than the whole, though the loss itself compares nothing."""
    monkeypatch.setattr("trainer.build.get_method", lambda name: type("Alone", (GlobalCnn,), {"stages": one_stage}))
    values = {
        "method_name": "global_cnn",
        "data": {"path": str(demo_cohort)},
        "steps": 2,
        "global_batch": 8,
        "out": str(tmp_path / "run"),
    }
    prepare(parse(values), 1)
    with pytest.raises(UserError, match="micro_batch=2: stage pretrain of global_cnn compares the samples"):
        prepare(parse({**values, "micro_batch": 2}), 1)


def one_stage(self):
    return (Stage("pretrain", ("image",)),)

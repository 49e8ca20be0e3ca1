"""Moving averages against the formula: on whole parameters and on ZeRO-3's shards, in float32 and beside weights of 16 bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.contract import Method, Options, Schema
from trainer.engine.memory import predict
from trainer.engine.teachers import Teachers, pairs


class Pair(Method):
    name = "pair"

    def __init__(self) -> None:
        super().__init__(Options(), Schema({}))
        self.student, self.teacher = nn.Linear(3, 2), nn.Linear(3, 2)
        self.mean, self.followed = nn.Parameter(torch.zeros(2), requires_grad=False), nn.Parameter(torch.ones(2))
        self.teacher.requires_grad_(False)

    def teachers(self, done: float) -> dict[str, tuple[str, float]]:
        return {"teacher": ("student", 0.9 + 0.1 * done), "mean": ("followed", 0.5)}


@pytest.mark.parametrize(("done", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_average_by_hand(done: float, momentum: float) -> None:
    torch.manual_seed(0)
    pair = Pair()
    before, student = pair.teacher.weight.clone(), pair.student.weight.clone()
    Teachers(pair, "fp32").update(done)
    torch.testing.assert_close(pair.teacher.weight.data, momentum * before + (1 - momentum) * student)
    assert torch.equal(pair.student.weight, student)
    assert pair.mean.tolist() == [0.5, 0.5], "a single parameter may follow another"


def sharded(pair: Pair) -> None:
    """As ZeRO-3 leaves parameters: the first of two shards beside an empty tensor."""
    for p in pair.parameters():
        size = -(-p.numel() // 2)
        p.ds_tensor, p.ds_numel, p.ds_shape = p.data.flatten()[:size].clone(), p.numel(), p.shape
        p.data = torch.empty(0)


def test_shards_are_averaged_where_they_lie() -> None:
    pair = Pair()
    sharded(pair)
    before, student = pair.teacher.weight.ds_tensor.clone(), pair.student.weight.ds_tensor
    Teachers(pair, "fp32").update(0.0)
    torch.testing.assert_close(pair.teacher.weight.ds_tensor, 0.9 * before + 0.1 * student)


def test_a_whole_that_is_the_shard_itself_is_averaged_once() -> None:
    """ZeRO-3 on one rank."""
    pair = Pair()
    for p in pair.parameters():
        p.ds_tensor, p.ds_numel, p.ds_shape = p.data.flatten(), p.numel(), p.shape
    before, student = pair.teacher.weight.clone(), pair.student.weight
    Teachers(pair, "fp32").update(0.0)
    torch.testing.assert_close(pair.teacher.weight.data, 0.9 * before + 0.1 * student)


class Slow(Pair):
    def teachers(self, done: float) -> dict[str, tuple[str, float]]:
        return {"teacher": ("student", 0.999)}


@pytest.mark.parametrize("zero3", [False, True])
def test_sixteen_bits_lose_nothing_of_the_average(zero3: bool) -> None:
    """A thousand updates of a thousandth each: bf16 alone would never move, since a step is below its resolution."""
    torch.manual_seed(0)
    pair = Slow()
    with torch.no_grad():
        pair.student.weight.copy_(pair.teacher.weight + 0.01)
    exact = pair.teacher.weight.data.clone()
    teachers = Teachers(pair, "bf16")
    pair.to(torch.bfloat16)
    if zero3:
        sharded(pair)
    teachers.share(0)

    def held(p: nn.Parameter) -> Tensor:
        return p.ds_tensor if zero3 else p.data

    student = held(pair.student.weight).float()
    gap = 0.01
    exact = exact.flatten()[: student.numel()].view(student.shape)
    for _ in range(1000):
        teachers.update(0.0)
        exact = exact.lerp(student, 1 - 0.999)
    assert torch.equal(held(pair.teacher.weight), exact.bfloat16())
    # 0.999^1000 = 0.37 of the way is left; bf16's own average would still be at the start.
    assert (exact - student).abs().mean() < 0.5 * gap
    assert teachers.apart == ("teacher.weight", "teacher.bias")


def test_a_saved_average_comes_back_and_what_lacks_is_named() -> None:
    pair, other = Slow(), Slow()
    kept, fresh = Teachers(pair, "bf16"), Teachers(other, "bf16")
    for method, teachers in ((pair, kept), (other, fresh)):
        method.to(torch.bfloat16)
        teachers.share(0)
    kept.update(0.0)
    state = kept.state()
    assert state["teacher.weight"].dtype == torch.float32
    assert fresh.load(state, 0) == []
    assert torch.equal(fresh.state()["teacher.weight"], state["teacher.weight"])
    assert fresh.load({"teacher.weight": state["teacher.weight"].T}, 0) == ["teacher.weight", "teacher.bias"]
    assert torch.equal(fresh.state()["teacher.weight"], state["teacher.weight"]), "what does not fit changes nothing"


def test_what_does_not_fit_the_method_is_an_error() -> None:
    for said, message in (
        ({"tutor": ("student", 0.9)}, "no such parameters"),
        ({"teacher": ("pupil", 0.9)}, "no parameter pupil.weight"),
        ({"student": ("teacher", 0.9)}, "is trained too"),
        ({"teacher": ("student", 1.1)}, "not between 0 and 1"),
    ):
        pair = Pair()
        pair.teachers = lambda done, said=said: said  # type: ignore[method-assign]
        with pytest.raises(AssertionError, match=message):
            pairs(pair, 0.0)


def test_the_plan_counts_averages_beside_weights_of_16_bits() -> None:
    assert predict(1000, 500, 2, 0, "bf16", followed=400).averages == 1600
    assert predict(1000, 500, 2, 3, "bf16", followed=400).averages == 800
    assert predict(1000, 500, 2, 3, "fp32", followed=400).averages == 0

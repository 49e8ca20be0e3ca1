"""Moving averages against the formula, on whole parameters and on ZeRO-3's shards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.contract import Method, Options, Schema
from trainer.config.schema import parse
from trainer.engine.teachers import check_teachers, update_teachers
from trainer.errors import UserError


class Pair(Method):
    name = "pair"

    def __init__(self) -> None:
        super().__init__(Options(), Schema({}))
        self.student, self.teacher = nn.Linear(3, 2), nn.Linear(3, 2)
        self.teacher.requires_grad_(False)

    def teachers(self) -> dict[str, tuple[str, float]]:
        return {"teacher": ("student", 0.9)}


def test_the_average_by_hand() -> None:
    torch.manual_seed(0)
    pair = Pair()
    before, student = pair.teacher.weight.clone(), pair.student.weight.clone()
    update_teachers(pair)
    torch.testing.assert_close(pair.teacher.weight.data, 0.9 * before + 0.1 * student)
    assert torch.equal(pair.student.weight, student)


def test_shards_are_averaged_where_they_lie() -> None:
    pair = Pair()
    for p in pair.parameters():  # as ZeRO-3 leaves a parameter: its shard beside an empty tensor
        p.ds_tensor, p.ds_numel = p.data.flatten()[:2].clone(), p.numel()
        p.data = torch.empty(0)
    before, student = pair.teacher.weight.ds_tensor.clone(), pair.student.weight.ds_tensor
    update_teachers(pair)
    torch.testing.assert_close(pair.teacher.weight.ds_tensor, 0.9 * before + 0.1 * student)


def test_sixteen_bits_are_refused() -> None:
    check_teachers(Pair(), parse({"method_name": "pair"}))
    with pytest.raises(UserError, match="use fp32"):
        check_teachers(Pair(), parse({"method_name": "pair", "precision": "bf16"}))

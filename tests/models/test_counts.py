"""Held-back values do not depend on how a split falls into batches, wherever samples lack a modality."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from synthetic import batch, build, records

from models.registry import method_names
from trainer.engine.evaluation import evaluate
from trainer.runtime import Runtime

RUNTIME = Runtime(0, 1, 0, torch.device("cpu"))
NAMES = [name for name in method_names() if name.startswith("mrm")]
STAGES = [(name, stage.name, stage.fields[1:]) for name in NAMES for stage in build(name).stages()]


class Whole:
    """A method as the evaluation sees an engine: no DeepSpeed, one rank."""

    def __init__(self, method):
        self.forward, self.train = method, method.train


def held_back(method, parts):
    return evaluate(Whole(method), SimpleNamespace(evaluate=lambda: iter(parts)), RUNTIME)


@pytest.mark.parametrize(("name", "stage", "optional"), STAGES)
def test_a_batch_without_a_modality_says_nothing_of_it(name, stage, optional):
    method = build(name)
    method.enter(stage)
    made = records(8, missing=dict.fromkeys((1, 4, 5, 6, 7), optional))
    together = held_back(method, [batch(method, made)])
    apart = held_back(method, [batch(method, made[:4]), batch(method, made[4:])])
    alone = held_back(method, [batch(method, [made[i] for i in (0, 2, 3)])])
    counted = [n for n in method(batch(method, made)).counts if f"loss/{n}" in together]
    assert counted, f"{name} has a term of {', '.join(optional)}"
    for term in counted:
        assert together[f"loss/{term}"] > 0
        assert apart[f"loss/{term}"] == pytest.approx(together[f"loss/{term}"], rel=1e-4)
        assert alone[f"loss/{term}"] == pytest.approx(together[f"loss/{term}"], rel=1e-4)

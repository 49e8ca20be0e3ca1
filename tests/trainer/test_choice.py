"""Which look is kept: the better value, of equal ones the smaller loss, of equal losses the later."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from models.contract import Stage
from trainer.engine.choice import Evaluation, better, chosen
from trainer.errors import TrainingError
from trainer.loop import Progress, _better


@pytest.mark.parametrize(
    ("one", "best", "kept"),
    [
        (Evaluation(0.7), None, True), (Evaluation(math.nan), None, False), (Evaluation(math.nan, 0.1), Evaluation(0.0, 9.0), False),
        (Evaluation(0.8, 9.0), Evaluation(0.7, 0.1), True), (Evaluation(0.7, 0.1), Evaluation(0.8, 9.0), False),
        (Evaluation(0.5, 0.3), Evaluation(0.5, 0.4), True), (Evaluation(0.5, 0.4), Evaluation(0.5, 0.3), False),
        (Evaluation(0.5, 0.3), Evaluation(0.5, 0.3), True),
        (Evaluation(0.5), Evaluation(0.5), True), (Evaluation(0.5, math.nan), Evaluation(0.5, 0.3), False),
        (Evaluation(0.5, 0.3), Evaluation(0.5, None), True),
    ],
)  # fmt: skip
def test_two_evaluations(one: Evaluation, best: Evaluation | None, kept: bool) -> None:
    assert better(one, best, "max") is kept
    turned = None if best is None else Evaluation(-best.value, best.loss)
    assert better(Evaluation(-one.value, one.loss), turned, "min") is kept


def test_candidates_beside_each_other() -> None:
    found = [
        Evaluation(0.5, 0.3),
        Evaluation(0.9, 0.4),
        Evaluation(0.9, 0.2),
        Evaluation(0.9, 0.2),
        Evaluation(math.nan),
    ]
    assert chosen(found, "max") == 2, "of points that are equal in all the first of the grid"
    assert chosen(found, "min") == 0
    assert chosen([Evaluation(math.nan)], "max") is None


def test_a_flat_metric_keeps_the_last_look_or_the_smallest_loss() -> None:
    """A kappa of 0 at every look used to keep the weights of the first step."""
    stage: Stage = SimpleNamespace(select=("kappa", "max"), name="finetune")  # type: ignore[assignment]

    def kept(looks: list[dict[str, float]]) -> int | None:
        progress = Progress()
        for step, values in enumerate(looks, 1):
            if _better(stage, values, progress):
                progress.best, progress.best_step, progress.best_loss = values["kappa"], step, values.get("loss")
        return progress.best_step

    assert kept([{"kappa": 0.0}] * 4) == 4
    assert kept([{"kappa": 0.0, "loss": v} for v in (0.7, 0.5, 0.6)]) == 2
    assert kept([{"kappa": 0.0, "loss": 0.1}, {"kappa": 0.2, "loss": 0.9}, {"kappa": 0.2, "loss": 0.9}]) == 3
    assert kept([{"kappa": math.nan, "loss": 0.1}] * 2) is None
    with pytest.raises(TrainingError, match="selects on 'kappa'"):
        kept([{"loss": 0.1}])

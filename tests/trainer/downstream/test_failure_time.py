"""Accelerated failure time as a task's option: what is asked of the head, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.downstream.planted import planted
from tests.trainer.downstream.test_intervals import setting
from trainer.downstream.targets.read import fitted
from trainer.downstream.task.read import build_task
from trainer.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("times") / "set", patients=40)


def test_log_times_are_scaled_by_the_training_split(data: Path, tmp_path: Path) -> None:
    found = setting(data, tmp_path / "run", "output.survival=weibull")
    train = found.splits["train"]
    asked = fitted(found.task, found.targets, train).question
    log_M = np.log(found.targets.value_NT[train, 0])
    assert (asked.outputs, asked.distribution, asked.compares) == (2, "weibull", False)
    assert asked.log_time == pytest.approx((log_M.mean(), log_M.std()))
    assert not {"intervals", "alpha"} & found.about()["task"]["output"].keys()
    value_NT = found.targets.value_NT.copy()
    value_NT[train[0], 0] = 0
    with pytest.raises(UserError, match=r"1 samples have a time of 0 or less.*use output\.survival=cox"):
        fitted(found.task, replace(found.targets, value_NT=value_NT), train)


@pytest.mark.parametrize(
    ("task", "words", "why"),
    [
        ("demo_subtype", ("output.survival=weibull",), r"output\.survival=weibull: a binary task has no times"),
        ("demo_survival", ("output.survival=log_logistic", "mode=linear"), r"mode linear has Cox's likelihood alone"),
        (
            "demo_survival",
            ("output.survival=weibull", "output.alpha=0.1"),
            r"output\.alpha: only output\.survival=intervals",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused(task: str, words: tuple[str, ...], why: str) -> None:
    with pytest.raises(UserError, match=why):
        build_task(task, list(words))

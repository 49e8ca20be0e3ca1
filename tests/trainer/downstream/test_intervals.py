"""Survival in intervals as a task's option: edges of the training split's events, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.downstream.planted import planted
from trainer.config.schema import parse
from trainer.data import schema_of
from trainer.downstream.init import find_source
from trainer.downstream.samples import COX, NORMS, check_batch
from trainer.downstream.setting import Setting, open_task_data, prepare
from trainer.downstream.targets.read import fitted
from trainer.downstream.task.read import build_task
from trainer.errors import UserError

BINS = "output.survival=intervals"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("times") / "set", patients=40)


def setting(data: Path, out: Path, *words: str) -> Setting:
    task, _ = build_task("demo_survival", [f"data.path={data}", *words])
    opened = open_task_data(task)
    return prepare(task, find_source("abmil", None, "demo", task, schema_of(opened), True), opened, out, 1)


def test_each_interval_has_as_many_events_of_the_training_split(data: Path, tmp_path: Path) -> None:
    found = setting(data, tmp_path / "run", BINS, "output.intervals=3", "output.alpha=0.2")
    train = found.splits["train"]
    asked = fitted(found.task, found.targets, train).question
    assert (asked.outputs, asked.alpha) == (3, 0.2)
    time_N, event_N = found.targets.value_NT[train].T
    counts = np.histogram(time_N[event_N == 1], [-np.inf, *asked.edges, np.inf])[0]
    assert counts.sum() >= 9
    assert counts.max() - counts.min() <= 1, counts
    everyone = fitted(found.task, found.targets, np.arange(len(found.targets.value_NT))).question
    assert everyone.edges != asked.edges, "held-back times must not move the edges"


def test_without_the_option_a_task_is_what_it_was(data: Path, tmp_path: Path) -> None:
    plain, binned = (setting(data, tmp_path / "run", *w) for w in ((), (BINS,)))
    assert not {"survival", "intervals", "alpha"} & plain.about()["task"]["output"].keys()
    assert binned.about()["task"]["output"]["survival"] == "intervals"
    question = fitted(plain.task, plain.targets, plain.splits["train"]).question
    assert (question.outputs, question.edges) == (1, None)


def test_too_few_events_are_refused_with_what_would_do(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"output\.intervals=99: .* events at .* times, too few to part; give fewer intervals"
    ):
        setting(data, tmp_path / "run", BINS, "output.intervals=99")


@pytest.mark.parametrize(
    ("task", "words", "why"),
    [
        ("demo_subtype", (BINS,), r"output\.survival=intervals: a binary task has no times"),
        ("demo_survival", (BINS, "mode=linear"), r"mode linear has Cox's likelihood alone"),
        ("demo_survival", ("output.intervals=3",), r"output\.intervals: only output\.survival=intervals"),
        ("demo_survival", (BINS, "output.intervals=1"), r"output\.intervals"),
        ("demo_survival", (BINS, "output.alpha=1"), r"output\.alpha"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(task: str, words: tuple[str, ...], why: str) -> None:
    with pytest.raises(UserError, match=why):
        build_task(task, list(words))


def test_one_sample_is_no_risk_set() -> None:
    """Cox's loss of a batch of one is 0 whatever is said of it, and batch norm has the statistics of one; intervals bear one."""
    config = parse({"method_name": "abmil", "data": {"path": "x"}, "steps": 1, "global_batch": 1, "out": "x"})
    check_batch(config, None, 1)
    with pytest.raises(
        UserError, match=r"protocol\.batch=1: samples of a batch are compared.*use protocol\.batch=2 or more$"
    ):
        check_batch(config, NORMS, 1)
    with pytest.raises(UserError, match=r"protocol\.batch=1: Cox's likelihood ranks.*use protocol\.batch=2 or more"):
        check_batch(config, COX, 1)

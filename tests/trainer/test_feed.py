"""Steps on their way to a GPU: copied one ahead, in order, each once. The device is played, the loader's steps are real."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from models.contract import Batch
from shards.load.loader import StepData
from trainer.engine.feed import batches_on_device, on_device


class Played:
    """A stream, and what was asked of it."""

    def __init__(self, *_: Any) -> None:
        self.waited: list[Any] = []

    def record_event(self) -> object:
        return object()

    def wait_event(self, event: object) -> None:
        self.waited.append(event)


@pytest.fixture
def compute(monkeypatch: pytest.MonkeyPatch) -> Played:
    stream = Played()
    monkeypatch.setattr(torch.cuda, "Stream", Played)
    monkeypatch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, s: None)
    monkeypatch.setattr(Batch, "pin", lambda self: self)
    monkeypatch.setattr(Batch, "to", lambda self, device, non_blocking: Batch({"x": self["x"] + 100}))
    return stream


def batch(value: int) -> Batch:
    return Batch({"x": torch.tensor([value])})


def test_steps_of_the_loader_reach_a_gpu(compute: Played) -> None:
    begun: list[int] = []

    def steps() -> Iterator[StepData]:
        for i in range(3):
            begun.append(i)
            yield StepData(0, i, i + 1, [batch(2 * i), batch(2 * i + 1)], "")

    arrived = []
    for step in on_device(steps(), torch.device("cuda")):
        assert len(begun) == min(step.step + 2, 3), "the next step is copied while this one computes"
        arrived.append([int(m["x"]) for m in step.micro])
    assert arrived == [[100, 101], [102, 103], [104, 105]]
    assert len(set(compute.waited)) == 3


def test_batches_of_an_evaluation_reach_a_gpu(compute: Played) -> None:
    found = batches_on_device((batch(i) for i in range(3)), torch.device("cuda"))
    assert [int(b["x"]) for b in found] == [100, 101, 102]


def test_on_a_cpu_they_are_there_already() -> None:
    step = StepData(0, 0, 1, [batch(5)], "")
    assert list(on_device([step], torch.device("cpu"))) == [step]

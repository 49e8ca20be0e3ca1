"""Batches on the device. On a GPU they are pinned and copied on a side stream one step ahead; on a CPU they are there already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch

from models.contract import Batch
from shards.load.loader import StepData


class Step(Protocol):
    """What a loader gives at a time: the micro batches of one update."""

    @property
    def micro(self) -> list[Batch]: ...


class StepLoader(Protocol):
    """A rank's share of the training data, in its order."""

    def iterate(self, epoch: int, step: int) -> Iterator[StepData[Batch]]: ...
    def state(self, consumed: int) -> dict[str, Any]: ...
    def close(self) -> None: ...


class EvalLoader(Protocol):
    """Held-back samples, once each over all ranks; padding weighs nothing."""

    def evaluate(self) -> Iterator[Batch]: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=Step)


class _Padded:
    """An evaluation batch in the shape of a step."""

    def __init__(self, batch: Batch):
        self.micro = [batch]


def batches_on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Evaluation batches on `device`."""
    for step in on_device(map(_Padded, batches), device):
        yield step.micro[0]


def on_device(steps: Iterable[S], device: torch.device) -> Iterator[S]:
    """The loader's steps with their micro batches on `device`."""
    if device.type == "cuda":
        return _copied_ahead(steps, device)
    return iter(steps)


def _copied_ahead(steps: Iterable[S], device: torch.device) -> Iterator[S]:
    stream = torch.cuda.Stream(device)
    ahead: tuple[S, torch.cuda.Event] | None = None

    def copy(step: S) -> tuple[S, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            # In place: a step is frozen, its list is its own.
            step.micro[:] = [m.pin().to(device, non_blocking=True) for m in step.micro]
            return step, stream.record_event()

    def ready(step: S, copied: torch.cuda.Event) -> S:
        # The compute stream waits for this step's copy only; the next one goes on beside it.
        compute = torch.cuda.current_stream(device)
        compute.wait_event(copied)
        for micro in step.micro:
            for t in [*micro.values(), *micro.present.values(), micro.weight_B]:
                t.record_stream(compute)
        return step

    for step in steps:
        following = copy(step)
        if ahead is not None:
            yield ready(*ahead)
        ahead = following
    if ahead is not None:
        yield ready(*ahead)

"""Batches on the device. On a GPU they are pinned and copied on a side stream one step ahead; on a CPU they are there already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch


def on_device(steps: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """The loader's steps with their micro batches on `device`."""
    if device.type == "cuda":
        return _copied_ahead(steps, device)
    return iter(steps)


def _copied_ahead(steps: Iterable[Any], device: torch.device) -> Iterator[Any]:
    stream = torch.cuda.Stream(device)
    ahead: tuple[Any, torch.cuda.Event] | None = None

    def copy(step: Any) -> tuple[Any, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            step.micro = [m.pin().to(device, non_blocking=True) for m in step.micro]
            return step, stream.record_event()

    def ready(step: Any, copied: torch.cuda.Event) -> Any:
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

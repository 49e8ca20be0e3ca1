"""Whether a batch is copied to the GPU beside the step before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.contract import Batch
from tests.gpu.outcome import Case, Found, NotRun
from trainer.engine.feed import on_device

MEGABYTES, STEPS, SIDE, PRODUCTS = 256, 6, 4096, 12


@dataclass
class Step:
    micro: list[Batch]


def copies() -> dict[str, Case]:
    return {"pinned, on a side stream": hidden}


def hidden() -> Found:
    """Copies alone, products of matrices alone, and the trainer's feed with products between: of the shorter most is hidden."""
    if not torch.cuda.is_available():
        raise NotRun("on a CPU a batch is where it is computed")
    device = torch.device("cuda", 0)
    host = [torch.zeros(MEGABYTES, 2**18).pin_memory() for _ in range(STEPS)]
    x = torch.randn(SIDE, SIDE, device=device)

    def compute(steps: int = 1) -> None:
        for _ in range(steps * PRODUCTS):
            torch.mm(x, x)

    def feed() -> None:
        for _ in on_device(iter([Step([Batch({"x": h})]) for h in host]), device):
            compute()

    copied = milliseconds(lambda: [h.to(device, non_blocking=True) for h in host])
    computed = milliseconds(lambda: compute(len(host)))
    together = milliseconds(feed)
    share = (copied + computed - together) / min(copied, computed)
    said = f"copies {copied:.0f} ms, products {computed:.0f} ms, together {together:.0f} ms: {share:.0%} of the shorter is hidden"
    return Found("pass" if share > 0.5 else "FAIL", said)


def milliseconds(work: Callable[[], object]) -> float:
    """On the GPU, after a turn that does not count."""
    work()
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)

"""Loss terms and diagnostics on a held-back split: every sample once, whatever the world size."""

from __future__ import annotations

from typing import Any

import torch

from models.parallel import total
from trainer.engine import Engine
from trainer.feed import on_device
from trainer.runtime import Runtime


class _Padded:
    """An evaluation batch in the shape of a step, for `on_device`."""

    def __init__(self, batch: Any):
        self.micro = [batch]


@torch.no_grad()
def evaluate(engine: Engine, loader: Any, runtime: Runtime) -> dict[str, float]:
    """Means over the split, `loss/TERM` and diagnostics, each batch weighted by its real samples.

    A term that compares samples is compared within the evaluation's batches.
    """
    engine.train(False)
    sums: dict[str, float] = {}
    count = 0.0
    for step in on_device((_Padded(b) for b in loader.evaluate()), runtime.device):
        (batch,) = step.micro
        out = engine.forward(batch)
        n = float(total(batch.weight_B.sum()))
        values = {f"loss/{k}": v for k, v in out.losses.items()} | out.diagnostics
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + n * float(value)
        count += n
    engine.train()
    return {k: v / count for k, v in sums.items()}

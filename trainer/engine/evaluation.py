"""Loss terms and diagnostics on a held-back split: every sample once, whatever the world size."""

from __future__ import annotations

import torch

from models.parallel import total
from trainer.engine.engine import Engine
from trainer.engine.feed import EvalLoader, batches_on_device
from trainer.runtime import Runtime


@torch.no_grad()
def evaluate(engine: Engine, loader: EvalLoader, runtime: Runtime) -> dict[str, float]:
    """Means over the split, `loss/TERM` and diagnostics, each batch weighted by its real samples, or by what the method counted for
    a value: a batch without a single report says nothing of reports. What is counted nowhere in the split is 0.

    A term that compares samples is compared within the evaluation's batches.
    """
    engine.train(False)
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for batch in batches_on_device(loader.evaluate(), runtime.device):
        out = engine.forward(batch)
        n = float(total(batch.weight_B.sum()))
        values = {f"loss/{k}": (k, v) for k, v in out.losses.items()} | {k: (k, v) for k, v in out.diagnostics.items()}
        for name, (of, value) in values.items():
            weight = float(total(out.counts[of])) if of in out.counts else n
            sums[name] = sums.get(name, 0.0) + weight * float(value)
            counts[name] = counts.get(name, 0.0) + weight
    engine.train()
    return {k: v / counts[k] if counts[k] else 0.0 for k, v in sums.items()}

"""Weights of an engine as a file, and the number by which a resume knows that they are those that were saved."""

from __future__ import annotations

from pathlib import Path

import torch

from models.contract import Batch
from models.init.grids import grid_text
from models.init.weights import weights_bytes
from models.parallel import alone
from trainer.engine.engine import Engine
from trainer.runtime import Runtime, from_main
from trainer.state.disk import written
from trainer.state.files import write_atomic


def write_weights(path: Path, engine: Engine, runtime: Runtime) -> None:
    """Whole float32 weights as safetensors; every rank must call."""
    weights, grids = engine.weights(), grid_text(engine.method)
    with written(path, "weights"):
        from_main(lambda: write_atomic(path, weights_bytes(weights, grids)))


@torch.no_grad()
def probe_loss(engine: Engine, probe: Batch) -> float:
    """Loss of the probe batch, each rank for itself and without dropout: the same number before a save and after a load."""
    engine.train(False)
    with alone():
        loss = float(engine.forward(probe).total)
    engine.train()
    return loss

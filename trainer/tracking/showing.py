"""The pictures that a method draws of the probe batch at each evaluation. Nothing about a picture ends a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from models.contract import Batch
from models.parallel import alone
from trainer.engine.engine import Engine
from trainer.errors import UserError
from trainer.tracking.tracker import Tracker

if TYPE_CHECKING:
    pass


@torch.no_grad()
def show(engine: Engine, probe: Batch, tracker: Tracker, step: int) -> None:
    """The method's pictures of the probe batch, to TensorBoard; every rank computes them, since sharded weights want all."""
    engine.train(False)
    try:
        with alone():
            for name, image_HWC in engine.method.pictures(probe).items():
                tracker.images(f"{engine.stage}/{name}", image_HWC, step)
    except Exception as e:
        # Every rank draws the same, so what one cannot draw none can.
        if tracker.main and not tracker.undrawn:
            why = f"the pictures could not be drawn, the training goes on without them: {reason(e)}"
            print(f"step {step}: {why}", flush=True)
        tracker.undrawn = True
    engine.train()


def reason(e: Exception) -> str:
    """Why there is no picture, in a line."""
    if isinstance(e, OSError):
        return f"{e.filename or 'a file'} cannot be written ({e.strerror})"
    return str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}"

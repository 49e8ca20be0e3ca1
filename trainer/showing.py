"""The pictures of a run: the method's at each look, the projection at the end. Nothing about a picture ends a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from models.parallel import alone
from trainer.engine.engine import Engine
from trainer.errors import UserError
from trainer.projection import projection
from trainer.state.files import write_atomic
from trainer.tracking.tracker import Tracker

if TYPE_CHECKING:
    from trainer.run import Run


@torch.no_grad()
def show(engine: Engine, probe: Any, tracker: Tracker, step: int) -> None:
    """The method's pictures of the probe batch, to TensorBoard; every rank computes them, since sharded weights want all."""
    engine.train(False)
    try:
        with alone():
            for name, image_HWC in engine.method.pictures(probe).items():
                tracker.images(f"{engine.stage}/{name}", image_HWC, step)
    except Exception as e:
        # Every rank draws the same, so what one cannot draw none can.
        if tracker.main and not tracker.undrawn:
            why = f"the pictures could not be drawn, the training goes on without them: {_reason(e)}"
            print(f"step {step}: {why}", flush=True)
        tracker.undrawn = True
    engine.train()


def show_projection(run: Run, tracker: Tracker, step: int) -> None:
    """The picture at the end: the run is trained by then."""
    try:
        picture = projection(run.config, run.data, run.out / "weights.safetensors")
        if picture is not None:
            write_atomic(run.out / "projection.png", picture)
            tracker.png("projection", picture, step)
    except Exception as e:
        run.runtime.say(f"projection.png was not drawn: {_reason(e)}")


def _reason(e: Exception) -> str:
    if isinstance(e, OSError):
        return f"{e.filename or 'a file'} cannot be written ({e.strerror})"
    return str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}"

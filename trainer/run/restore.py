"""Back to a checkpoint: whether it is of this run, and whether its weights are those that were saved."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from models.contract import Batch
from shards.format.meaning import disagreements
from shards.load.position import version_of
from trainer.engine.engine import Engine
from trainer.errors import TrainingError, UserError, everywhere
from trainer.loop import Progress
from trainer.run.job import Run
from trainer.run.weights import probe_loss
from trainer.runtime import from_main, gather_objects
from trainer.state.disk import written


def progress_of(run: Run, path: Path, state: dict[str, Any]) -> Progress:
    """Where the checkpoint stands, after checking that it is of this run.

    Raises:
        UserError: other data, another method, another sharding.
    """
    old, new = state["config"], run.resolved
    problems = []
    if old["method_name"] != new["method_name"]:
        problems.append(
            f"{path} is a checkpoint of {old['method_name']}, not of {new['method_name']}: give another out=FOLDER"
        )
    if old["zero"]["stage"] != new["zero"]["stage"] or old["precision"] != new["precision"]:
        problems.append(
            f"{path} was saved under zero.stage={old['zero']['stage']} precision={old['precision']}; "
            f"DeepSpeed cannot load it under {new['zero']['stage']}, {new['precision']}: keep them, or give another out=FOLDER"
        )
    if state["loader"]["fingerprint"] != run.data.fingerprint and not run.config.resume.accept_data:
        problems.append(
            f"{path} was trained on data with fingerprint {state['loader']['fingerprint']}, "
            f"data.path has {run.data.fingerprint}: restore the data set, or accept the new one with resume.accept_data=true"
        )
    # Other data may be accepted; numbers that mean something else may not.
    differing = disagreements(state.get("meanings", {}), path, run.data.meanings, ", ".join(run.data.paths))
    problems += [str(p) for p in differing]
    if problems:
        raise UserError(problems)
    run.data.order_version = version_of(state["loader"])  # before a loader or the probe batch is made of it
    progress = Progress(**state["progress"])
    run.runtime.say(f"going on from {path} (step {progress.step})")
    return progress


def restore(
    run: Run, engine: Engine, probe: Batch, same_world: bool, best: Path, path: Path, state: dict[str, Any]
) -> None:
    run.checkpoints.restore(engine, path, same_world)
    if (path / "best.safetensors").exists():
        with written(best, "the best weights"):
            from_main(lambda: shutil.copyfile(path / "best.safetensors", best))
    if state["loader"]["fingerprint"] != run.data.fingerprint:
        return  # other data were accepted: the probe batch is another one
    then, found = state["probe"], gather_objects(probe_loss(engine, probe))
    tolerance = 1e-4 if run.config.precision == "fp32" else 2e-2
    wrong = [(r, x) for r, x in enumerate(found) if not math.isclose(x, then, rel_tol=tolerance, abs_tol=1e-6)]
    if math.isfinite(then) and wrong:
        rank, now = wrong[0]
        raise everywhere(
            TrainingError(
                f"{path}: the probe batch had loss {then:.6g} when it was saved and has {now:.6g} after loading (rank {rank}): "
                "the weights are not those that were saved. Remove that checkpoint to go on from the one before"
            )
        )

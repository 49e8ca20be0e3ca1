"""From a checkpoint back into an engine, on the same number of ranks or another, and proof that every tensor is the one that was saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from trainer.engine import no_share, tensors
from trainer.engine.engine import Engine
from trainer.errors import TrainingError, UserError, everywhere
from trainer.runtime import Runtime, from_main, gather_objects, restore_random_states
from trainer.state.taking import AVERAGES, ENGINE, OWN, TENSORS
from trainer.state.universal import to_universal


def restore(engine: Engine, path: Path, same_world: bool, runtime: Runtime) -> None:
    """Loads weights, buffers, optimizer state and random states; converts first when the world size differs.

    Random states belong to ranks, so another world size starts fresh ones (see the loop). Buffers that differ between ranks do too:
    another world size has those of rank 0 everywhere. All ranks must call.

    Raises:
        UserError: DeepSpeed cannot convert the optimizer's state to another number of ranks.
        TrainingError: on every rank, when a tensor of any rank is not the one that was saved.
    """
    stage = engine.config.zero.stage
    if not same_world and stage > 0 and engine.optim.kind == "sgd":
        fix = "give it that number of ranks again, or set zero.stage=0 from the start"
        raise everywhere(
            UserError(f"{path} was saved by another number of ranks: DeepSpeed converts Adam's state, not SGD's; {fix}")
        )
    # Without sharding every rank's file holds everything, so any number of ranks reads it as it is.
    source = path if same_world or stage == 0 else _universal(path, stage, runtime)
    with no_share.allowed(engine.deepspeed.optimizer) if source != path else nullcontext():
        loaded, _ = engine.deepspeed.load_checkpoint(str(source), tag=ENGINE)
    if loaded is None:
        raise TrainingError(f"DeepSpeed could not load {source / ENGINE}")
    own: dict[str, Tensor] = {}
    if same_world:
        kept = torch.load(path / f"rank-{runtime.rank:05d}.pt", weights_only=True)
        restore_random_states(kept)
        own = kept.get(OWN, {})
    else:
        _restore_untrained(engine, path)
    for name, value in own.items():
        engine.method.get_buffer(name).copy_(value)
    _restore_averages(engine, path, runtime)
    if source != path:
        engine.untangle()
    # After everything that loads: a tensor that any of the ways above left as it was built is found here, on its rank.
    compare(engine, path, own)
    if source != path:
        from_main(lambda: shutil.rmtree(source, ignore_errors=True))


def _restore_untrained(engine: Engine, path: Path) -> None:
    """A universal checkpoint carries trained parameters and their moments alone; frozen ones and buffers come from rank 0's file."""
    lacking = tensors.put(engine, tensors.untrained(path / ENGINE))
    if lacking:
        raise everywhere(
            TrainingError(
                f"{path} has no frozen parameter or buffer of this name and shape: {', '.join(lacking[:5])} "
                f"({len(lacking)} in all): give the number of ranks that saved it, or another out=FOLDER"
            )
        )


def _restore_averages(engine: Engine, path: Path, runtime: Runtime) -> None:
    """Float32 averages behind teachers of 16 bits, from the file that rank 0 wrote of whole ones: any number of ranks reads it."""
    if not engine.teachers.apart:
        return
    kept = path / AVERAGES
    values = torch.load(kept, map_location="cpu", weights_only=True) if kept.exists() else {}
    lacking = engine.teachers.load(values, runtime.rank)
    if lacking:
        raise everywhere(
            TrainingError(
                f"{kept} has no average of this name and shape: {', '.join(lacking[:5])} ({len(lacking)} in all): "
                "remove that checkpoint to go on from the one before, or give another out=FOLDER"
            )
        )


def compare(engine: Engine, path: Path, own: Mapping[str, Tensor]) -> None:
    """Every tensor of every rank is the one that was saved; `own`: the buffers of this rank that are not those of rank 0.

    Raises:
        TrainingError: on every rank, naming those that are not, and where.
    """
    saved = json.loads((path / "state.json").read_bytes()).get(TENSORS)
    if saved is None:  # written before hashes were kept: the probe batch has to do
        return
    mine = tensors.hashes(engine)
    wrong = tensors.differing(mine, {**saved, **{n: tensors.digest(t) for n, t in own.items()}})
    found = {r: names for r, names in enumerate(gather_objects(wrong)) if names}
    if found:
        said = [f"rank {r}: {len(names)} ({', '.join(names[:5])})" for r, names in found.items()]
        raise everywhere(
            TrainingError(
                f"{path}: tensors are not those that were saved after loading. {'; '.join(said)}. Give the number of ranks "
                "that saved it again, or remove that checkpoint to go on from the one before"
            )
        )


def _universal(path: Path, stage: int, runtime: Runtime) -> Path:
    """Converts to DeepSpeed's universal form in a process of its own (on rank 0)."""
    target = path.with_name(f".universal-{path.name}")
    runtime.say(f"{path.name} was saved by another number of ranks: converting it")

    def convert() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        to_universal(path / ENGINE, target / ENGINE, stage)

    from_main(convert)
    return target

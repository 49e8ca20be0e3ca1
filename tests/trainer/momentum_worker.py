"""On each rank: a student, its average whose momentum follows the progress, and a queue, through six steps of which the third is not
finite. `main([FOLDER])` saves after the fourth, goes on, and does the last two again from the checkpoint; `main([FOLDER, OTHER])` does
the last two from OTHER's checkpoint, whatever number of ranks saved it. Writes FOLDER/rank-R.pt.

`main([FOLDER, "systems", NAME, ...])` does the same with registered systems, four steps each, saved after the second.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.contract import Batch, Method, Options, Output, Schema
from models.layers.batch_norm import GlobalBatchNorm1d, counted
from models.parallel import global_mean
from tests.trainer.driver import keep_states, whole_state
from trainer.config.schema import parse
from trainer.engine.engine import Engine
from trainer.engine.queues import enqueued
from trainer.runtime import Runtime, finish, start
from trainer.state.checkpoint import Checkpoints

CASES = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")]
STEPS, BAD, SAVED, BATCH = 6, 2, 4, 4
SYSTEM_CASES = [(1, "fp32"), (2, "fp32"), (3, "bf16")]


class Momentum(Method):
    name = "momentum"

    def __init__(self) -> None:
        super().__init__(Options(), Schema({}))
        # An odd number of weights is padded under ZeRO-3, and the biases are small enough to stay whole on every rank.
        self.student = nn.Sequential(nn.Linear(13, 7), GlobalBatchNorm1d(7))
        self.teacher = nn.Sequential(nn.Linear(13, 7), GlobalBatchNorm1d(7))
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.add_queue("keys", 6, 7)
        self.scale = 1.0

    def at(self, done: float) -> None:
        self.scale = 1.0 + done

    def teachers(self, done: float) -> dict[str, tuple[str, float]]:
        return {"teacher": ("student", 0.9 + 0.1 * done)}

    def forward(self, batch: Batch) -> Output:
        x_BF, weight_B = batch["x"].to(self.dtype), batch.weight_B
        with counted(weight_B):
            q_BC = self.student(x_BF).float()
            with torch.no_grad():
                k_BC = self.teacher(x_BF).float()
        queue_NC, valid_N = self.get_buffer("queue_keys").float(), self.get_buffer("queue_keys_valid")
        apart_B = (self.scale * q_BC - k_BC.flip(1)).square().mean(1)
        near_B = ((q_BC @ queue_NC.T) * valid_N).square().mean(1)
        loss = global_mean(((apart_B + 0.1 * near_B) * weight_B).sum(), weight_B.sum())
        return Output({"l": loss}, loss, enqueue={"keys": (k_BC, weight_B)})


def batch_of(step: int, runtime: Runtime) -> Batch:
    """This rank's share of a global batch whose last sample is padding."""
    g = torch.Generator().manual_seed(step)
    x_GF, weight_G = torch.randn(BATCH, 13, generator=g), torch.tensor([1.0, 1, 1, 0])
    share = BATCH // runtime.world
    here = slice(runtime.rank * share, (runtime.rank + 1) * share)
    return Batch({"x": x_GF[here]}, weight_B=weight_G[here])


def engine_of(
    stage: int, precision: str, runtime: Runtime, universal: bool = False, method: Method | None = None
) -> Engine:
    torch.manual_seed(5)
    settings = {"global_batch": BATCH, "precision": precision, "zero": {"stage": stage}, "epochs": 1}
    config = parse({"method_name": "momentum" if method is None else method.name, **settings})
    return Engine(method or Momentum(), config, "only" if method is None else "pretrain", runtime, universal)


def step(engine: Engine, number: int, updates: int, runtime: Runtime) -> bool:
    engine.at(updates / (STEPS - 1))
    engine.accumulate(True)
    output = engine.forward(batch_of(number, runtime))
    engine.backward(output.total * (float("inf") if number == BAD else 1.0))
    return engine.update(1e-2, enqueued([output]))


def state(engine: Engine) -> dict[str, Tensor]:
    return {n: t.cpu() for n, t in whole_state(engine).items()}


def after(engine: Engine, runtime: Runtime) -> dict[str, Tensor]:
    """The steps behind the checkpoint; one of those before was skipped."""
    for number in range(SAVED, STEPS):
        assert step(engine, number, number - 1, runtime)
    return state(engine)


def run(stage: int, precision: str, folder: Path, runtime: Runtime) -> dict[str, Any]:
    checkpoints = Checkpoints(folder / f"{stage}-{precision}", parse({"method_name": "momentum"}).checkpoint, runtime)
    engine, found = engine_of(stage, precision, runtime), {}
    for number in range(SAVED):
        if number == BAD:
            found["before"] = state(engine)
        applied = step(engine, number, number - (number > BAD), runtime)
        assert applied == (number != BAD)
        if number == BAD:
            found["skipped"] = state(engine)
    found["saved"] = state(engine)
    path = checkpoints.save(engine, SAVED, {"world": runtime.world})
    found["whole"] = after(engine, runtime)
    found["weights"] = engine.weights()
    engine.close()
    engine = engine_of(stage, precision, runtime)
    checkpoints.restore(engine, path, same_world=True)
    found["again"] = after(engine, runtime)
    engine.close()
    return found


def moved(stage: int, precision: str, other: Path, runtime: Runtime) -> dict[str, Any]:
    checkpoints = Checkpoints(other / f"{stage}-{precision}", parse({"method_name": "momentum"}).checkpoint, runtime)
    engine = engine_of(stage, precision, runtime, universal=stage > 0)
    checkpoints.restore(engine, checkpoints.path(SAVED), same_world=False)
    found = {"loaded": state(engine), "whole": after(engine, runtime)}
    engine.close()
    return found


def system(name: str, stage: int, precision: str, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """A registered system at the sizes of its demo recipe, nothing dropped at random: saved in mid-schedule, and gone on from there."""
    from synthetic import batch, build, records

    checkpoints = Checkpoints(folder / f"{name}-{stage}-{precision}", parse({"method_name": name}).checkpoint, runtime)
    share = BATCH // runtime.world
    here = records(BATCH)[runtime.rank * share : (runtime.rank + 1) * share]

    def engine() -> Engine:
        made = build(name, still=True)
        made.enter("pretrain")
        return engine_of(stage, precision, runtime, method=made)

    def steps(engine: Engine, first: int) -> dict[str, Tensor]:
        for number in range(first, first + 2):
            engine.at(number / 3)
            engine.accumulate(True)
            output = engine.forward(batch(engine.method, here, epoch=number))
            engine.backward(output.total)
            assert engine.update(1e-2, enqueued([output]))
        return state(engine)

    running = engine()
    found = {"saved": steps(running, 0)}
    path = checkpoints.save(running, 2, {"world": runtime.world})
    found["whole"] = steps(running, 2)
    running.close()
    running = engine()
    checkpoints.restore(running, path, same_world=True)
    found["again"] = steps(running, 2)
    running.close()
    return found


def main(words: list[str]) -> int:
    folder, runtime = Path(words[0]), start()
    keep_states({"to": str(folder)})  # so that checkpoints are converted in this process
    if words[1:2] == ["systems"]:
        sys.path.insert(0, str(Path(__file__).parents[1] / "models"))  # as pytest does for the tests of models
        cases = {f"{n}-{z}-{p}": system(n, z, p, folder, runtime) for n in words[2:] for z, p in SYSTEM_CASES}
    else:
        cases = {
            f"{z}-{p}": moved(z, p, Path(words[1]), runtime) if words[1:] else run(z, p, folder, runtime)
            for z, p in CASES
        }
    torch.save(cases, folder / f"rank-{runtime.rank}.pt")
    finish()
    return 0

"""On each rank: a method with a student, its moving average, a frozen layer and buffers of the rank's own, saved and loaded again.

`main([FOLDER])`, run by test_tensors.py on two ranks; writes FOLDER/rank-R.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from models.contract import Batch, Group, Method, Options, Output, Schema
from trainer.config.schema import parse
from trainer.engine.engine import Engine
from trainer.errors import TrainingError
from trainer.runtime import Runtime, finish, start
from trainer.state.checkpoint import Checkpoints
from trainer.state.restoring import compare


class Rest(Method):
    name = "rest"

    def __init__(self) -> None:
        super().__init__(Options(), Schema({}))
        self.student, self.teacher, self.frozen = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(7, 9)
        self.teacher.requires_grad_(False)
        self.frozen.requires_grad_(False)
        self.register_buffer("queue", torch.zeros(4))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def teachers(self, done: float) -> dict[str, tuple[str, float]]:
        return {"teacher": ("student", 0.5)}

    def param_groups(self) -> list[Group]:
        return [Group("all", list(self.student.parameters()))]

    def forward(self, batch: Batch) -> Output:
        self.seen += 1
        self.queue[0] = batch["x"].sum()  # of this rank's samples alone
        loss = (self.student(batch["x"]) ** 2).mean()
        return Output({"l": loss}, loss)


def engine_of(stage: int, runtime: Runtime) -> Engine:
    torch.manual_seed(stage)
    return Engine(Rest(), parse({"method_name": "rest", "global_batch": 2, "zero": {"stage": stage}}), "only", runtime)


def cycle(stage: int, folder: Path, runtime: Runtime) -> dict[str, object]:
    checkpoints = Checkpoints(folder / str(stage), parse({"method_name": "rest"}).checkpoint, runtime)
    engine = engine_of(stage, runtime)
    for _ in range(3):
        engine.accumulate(True)
        engine.backward(engine.forward(Batch({"x": torch.full((1, 3), 1.0 + runtime.rank)})).total)
        engine.update(1e-2)
    path = checkpoints.save(engine, 3, {})
    engine.close()
    engine = engine_of(stage, runtime)
    checkpoints.restore(engine, path, same_world=True)
    out: dict[str, object] = {"queue": engine.method.queue.tolist(), "seen": int(engine.method.seen)}
    engine.method.frozen.weight.data += 1
    engine.method.seen += runtime.rank  # what a load must not leave is found, on the rank that has it
    try:
        compare(engine, path, {})
    except TrainingError as e:
        out["error"] = str(e)
    engine.close()
    return out


def main(words: list[str]) -> int:
    folder, runtime = Path(words[0]), start()
    found = {str(stage): cycle(stage, folder, runtime) for stage in (0, 1, 2)}
    (folder / f"rank-{runtime.rank}.json").write_text(json.dumps(found))
    finish()
    return 0

"""On each rank: one state saved while training waits, and again by a thread that is held until training has gone on.

`main([FOLDER])`, run by test_background_saves.py; writes FOLDER/rank-R.json: by case what differs between the two checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.contract import Batch
from tests.trainer.state_worker import Rest
from trainer.config.schema import parse
from trainer.engine.engine import Engine
from trainer.engine.memory import predict
from trainer.errors import TrainingError
from trainer.runtime import Runtime, finish, start
from trainer.state.checkpoint import Checkpoints
from trainer.state.taking import Recorder, Taken

CASES = [(stage, precision) for stage in (0, 1, 2, 3) for precision in ("fp32", "bf16") if stage or precision == "fp32"]


def step(engine: Engine, runtime: Runtime) -> None:
    x_BD = torch.full((1, 3), 1.0 + runtime.rank, dtype=next(engine.method.parameters()).dtype)
    engine.accumulate(True)
    engine.backward(engine.forward(Batch({"x": x_BD})).total)
    engine.update(1e-2)


def hashes(folder: Path) -> dict[str, str]:
    found = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def held(call: Callable[..., Any], until: threading.Event) -> Callable[..., Any]:
    def late(*args: Any) -> Any:
        until.wait()
        return call(*args)

    return late


def case(stage: int, precision: str, folder: Path, runtime: Runtime) -> dict[str, object]:
    settings = {"method_name": "rest", "global_batch": runtime.world, "zero": {"stage": stage}, "precision": precision}
    config = parse(settings)
    torch.manual_seed(stage)
    engine = Engine(Rest(), config, "only", runtime)
    step(engine, runtime)
    seen: list[int] = []
    best = folder / f"best-{runtime.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    best.write_bytes(b"best")
    wait = Checkpoints(folder / "wait", config.checkpoint.model_copy(update={"write": "wait"}), runtime)
    right = hashes(wait.save(engine, 1, {"seen": seen}, best))
    later = Checkpoints(folder / "later", config.checkpoint.model_copy(update={"write": "background"}), runtime)
    if stage % 2:
        later.reserve(engine, 64 * 30 + 4096)  # each begins at a multiple of 64
        later.wait()
    go_on = threading.Event()
    if (
        runtime.rank == 0 or stage % 2 == 0
    ):  # else a rank's writer waits in a collective for the others, while training has its own
        later._write = held(later._write, go_on)  # type: ignore[method-assign]
    path = later.save(engine, 1, {"seen": seen}, best)
    # Everything that a save is of changes before a byte of it is written; collectives of training pass while the writers wait.
    seen.append(1)
    new = best.with_suffix(".new")
    new.write_bytes(b"better")
    new.replace(best)
    step(engine, runtime)
    torch.rand(3)
    begun = (later.folder / "latest").exists() or path.exists()
    go_on.set()
    later.wait()
    copied = hashes(path)
    sizes, ready = later.copies.nbytes, later.copies._ready
    inside = [
        not s.nbytes() or 0 <= s.data_ptr() - ready.data_ptr() <= ready.nbytes() - s.nbytes()
        for s in later.copies._kept
    ]
    # The next save is of what is there now, in the memory of the last one.
    memory = {s.data_ptr() for s in later.copies._kept}
    second = later.save(engine, 2, {"seen": seen}, best)
    later.wait()
    reused = {s.data_ptr() for s in later.copies._kept} == memory
    now = Checkpoints(folder / "now", config.checkpoint.model_copy(update={"write": "wait"}), runtime)
    changed = hashes(now.save(engine, 2, {"seen": seen}, best))
    later.close()
    engine.close()
    params = list(Rest().parameters())
    trained = sum(p.numel() for p in Rest().student.parameters())
    predicted = predict(trained, sum(p.numel() for p in params) - trained, runtime.world, stage, precision)
    return {
        "differs": sorted(k for k in right.keys() | copied.keys() if right.get(k) != copied.get(k)),
        "second differs": sorted(k for k, v in changed.items() if hashes(second).get(k) != v),
        "changed": sorted(k for k in right if right[k] != changed.get(k)),
        "files": sorted(right),
        "begun": begun,
        "reused": reused,
        "ready": all(inside),
        "bytes": sizes,
        "predicted": predicted.saved,
    }


def refused(folder: Path, runtime: Runtime) -> dict[str, object]:
    """A save into a place that is a file: what it says, and whether the file that it had opened is closed and what it took let go."""
    config = parse({"method_name": "rest", "global_batch": runtime.world})
    engine = Engine(Rest(), config, "only", runtime)
    (place := folder / f"file-{runtime.rank}").write_bytes(b"best")
    checkpoints = Checkpoints(place, config.checkpoint, runtime)
    opened: list[Taken] = []
    take = checkpoints._take

    def seen(*args: Any, **more: Any) -> Taken:
        opened.append(take(*args, **more))
        return opened[-1]

    checkpoints._take = seen  # type: ignore[method-assign]
    said = ""
    try:
        checkpoints.save(engine, 1, {}, place)
    except TrainingError as e:
        said = str(e)
    kept = isinstance(engine.deepspeed.checkpoint_engine, Recorder)
    engine.close()
    return {"said": said, "closed": [t.best.closed for t in opened if t.best is not None], "kept": kept}


def main(words: list[str]) -> int:
    folder, runtime = Path(words[0]), start()
    (folder / f"refused-{runtime.rank}.json").write_text(json.dumps(refused(folder, runtime)))
    found = {f"{s} {p}": case(s, p, folder / f"{runtime.world}-{s}-{p}", runtime) for s, p in CASES}
    (folder / f"rank-{runtime.rank}.json").write_text(json.dumps(found))
    finish()
    return 0

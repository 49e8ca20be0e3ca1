"""How long a step waits for a checkpoint of 1 GB: written while training waits, and while it goes on; ZeRO 1 to 3 on 1 and 2 ranks.

    python tests/benchmarks/checkpoint.py [--gb 1] [--rounds 3] [--cells 1 2 3 peer] [--worlds 1 2]

Peer: torch.distributed.checkpoint, `save` and `async_save` (its staged copies kept from one save to the next, as ours are), of the same
bytes: weights, float32 weights and two moments a parameter. Floor: a copy of these bytes into memory that was used before. Of each
round the two ways alternate; medians of all rounds but the first, which is told apart. Memory for the copies is made ready before, as a run
does beside its first steps.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
WIDTH = 2048


def method_of(parameters: float) -> Any:
    import torch
    from torch import nn

    from models.contract import Batch, Group, Method, Options, Output, Schema

    class Wide(Method):
        name = "wide"

        def __init__(self) -> None:
            super().__init__(Options(), Schema({}))
            self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(round(parameters / WIDTH**2)))

        def param_groups(self) -> list[Group]:
            return [Group("all", list(self.parameters()))]

        def forward(self, batch: Batch) -> Output:
            x_BD = batch["x"]
            for layer in self.layers:
                x_BD = torch.relu(layer(x_BD)) + x_BD
            loss = (x_BD**2).mean()
            return Output({"l": loss}, loss)

    torch.manual_seed(0)
    return Wide()


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def cell(gb: float, stage: int, rounds: int, folder: Path, runtime: Any) -> str:
    import torch

    from models.contract import Batch
    from trainer.config.schema import parse
    from trainer.engine.engine import Engine
    from trainer.engine.memory import predict
    from trainer.runtime import barrier
    from trainer.state.checkpoint import Checkpoints

    config = parse({"method_name": "wide", "global_batch": 16 * runtime.world, "zero": {"stage": stage}})
    # Stage 3 keeps no whole weights beside the float32 ones and their two moments.
    engine = Engine(method_of(gb * 1e9 / (12 if stage == 3 else 16)), config, "only", runtime)
    batch = Batch({"x": torch.full((16, WIDTH), 0.01)})

    def step() -> None:
        engine.accumulate(True)
        engine.backward(engine.forward(batch).total)
        engine.update(1e-5)

    ways = {
        way: Checkpoints(folder / way, config.checkpoint.model_copy(update={"keep": 1, "write": way}), runtime)
        for way in ("wait", "background")
    }
    sharded = predict(engine.parameters, 0, runtime.world, stage, "fp32").saved
    ways["background"].reserve(engine, sharded + 64 * 8 * len(engine.method.layers))
    ways["background"].wait()
    took: dict[str, list[float]] = {k: [] for k in ("wait", "step waits", "written", "processor")}
    for i in range(rounds + 1):
        step()
        barrier()
        took["wait"].append(seconds(lambda i=i: ways["wait"].save(engine, i, {})))
        barrier()
        began, spent = time.perf_counter(), time.process_time()
        took["step waits"].append(seconds(lambda i=i: ways["background"].save(engine, i, {})))
        ways["background"].wait()
        took["written"].append(time.perf_counter() - began)
        took["processor"].append(time.process_time() - spent)
        barrier()
    copying = ways["background"].copies.nbytes
    size = sum(p.stat().st_size for p in ways["wait"].path(rounds).rglob("*") if p.is_file())
    ways["background"].close()
    engine.close()
    barrier()
    if runtime.main:
        shutil.rmtree(folder)
    median = {k: statistics.median(v[1:]) for k, v in took.items()}
    ratio = statistics.median(b / a for a, b in zip(took["wait"][1:], took["step waits"][1:], strict=True))
    first = f"first {took['step waits'][0]:.2f} of {took['wait'][0]:.2f} s"
    return (
        f"ZeRO {stage}, {runtime.world} rank(s), {size / 1e9:.2f} GB: waits {median['wait']:.2f} s; "
        f"in the background {median['step waits']:.3f} s = {ratio:.1%} ({first}), on disk after {median['written']:.2f} s, "
        f"{median['processor']:.2f} s of a processor a rank; copies of rank 0 {copying / 1e9:.2f} GB"
    )


def peer(gb: float, rounds: int, folder: Path, runtime: Any) -> str:
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    from trainer.runtime import barrier

    # One rank's share of each kind of tensor; keys of its own, or ranks would share the writing of one tensor.
    n = round(gb * 1e9 / 16 / WIDTH**2)
    state = {
        f"{kind}.{i}.{runtime.rank}": torch.randn(WIDTH, WIDTH // runtime.world)
        for kind in ("w", "master", "m", "v")
        for i in range(n)
    }
    copies = {k: torch.zeros_like(v) for k, v in state.items()}
    options = StagingOptions(
        use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
    )
    stager = DefaultStager(options)
    took: dict[str, list[float]] = {"wait": [], "step waits": [], "copy": []}
    for i in range(rounds + 1):
        barrier()
        took["wait"].append(seconds(lambda i=i: dcp.save(state, checkpoint_id=folder / f"wait-{i}")))
        barrier()
        began = time.perf_counter()
        saving = dcp.async_save(state, checkpoint_id=folder / f"later-{i}", async_stager=stager)
        took["step waits"].append(time.perf_counter() - began)
        getattr(saving, "upload_completion", saving).result()
        took["copy"].append(seconds(lambda: [c.copy_(state[k]) for k, c in copies.items()]))
        barrier()
        if runtime.main:
            shutil.rmtree(folder)
        barrier()
    median = {k: statistics.median(v[1:]) for k, v in took.items()}
    return (
        f"torch DCP, {runtime.world} rank(s): save {median['wait']:.2f} s; async_save {median['step waits']:.3f} s = "
        f"{median['step waits'] / median['wait']:.1%} of it (first {took['step waits'][0]:.2f} s); copy alone {median['copy']:.3f} s"
    )


def on_rank(args: argparse.Namespace, world: int, folder: Path) -> None:
    import torch

    from trainer.runtime import finish, start

    torch.set_num_threads(1)
    runtime = start()
    for name in args.cells:
        here = folder / f"{world}-{name}"
        if name == "peer":
            runtime.say(peer(args.gb, args.rounds, here, runtime))
        else:
            runtime.say(cell(args.gb, int(name), args.rounds, here, runtime))
    finish()


def ranks(args: argparse.Namespace, world: int, folder: Path, port: int) -> int:
    """Forks `world` processes that have loaded nothing yet; the sum of their statuses."""
    children = []
    for rank in range(world):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                os.environ.update(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world)
                )
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                on_rank(args, world, folder)
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        children.append(pid)
    return sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def main() -> int:
    from tests.ports import free_port

    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--gb", type=float, default=1.0)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--cells", nargs="*", default=["1", "2", "3", "peer"], help="ZeRO stages, and peer")
    p.add_argument("--worlds", type=int, nargs="*", default=[1, 2])
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return sum(ranks(args, world, Path(folder), free_port()) for world in args.worlds)


if __name__ == "__main__":
    sys.exit(main())

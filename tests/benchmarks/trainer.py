"""What our training loop costs over a bare PyTorch loop: same model, same batches, same threads, alternating in one process.

    python tests/benchmarks/trainer.py [--rounds 5] [--steps 8]

Ours is the whole of it: DeepSpeed's engine, the loader's threads, agreement, metrics.jsonl, TensorBoard, collapse monitors. The bare
loop has its batches in memory and does forward, backward, clip, AdamW. Target: at most 5 % at a step of 200 ms or more.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

WORDS = [
    "method.dim=384",
    "method.heads=6",
    "method.window=384",
    "method.landmarks=64",
    "global_batch=16",
    "method.dropout=0.0",
]


def bare(method: Any, batches: list[Any], lr: float) -> Callable[[int], None]:
    """A plain loop over batches in memory."""
    params = [p for p in method.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(params, lr=lr)
    at = [0]

    def run(steps: int) -> None:
        method.train()
        for _ in range(steps):
            loss = method(batches[at[0] % len(batches)]).total
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            adam.step()
            adam.zero_grad()
            at[0] += 1

    return run


def ours(folder: Path, stage: int, most: int) -> tuple[Callable[[int], None], Any, list[Any]]:
    """The real loop on the demo cohort; also the method it started from and the batches it will see."""
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.config.schema import out_folder
    from trainer.data import open_data
    from trainer.engine.engine import Engine
    from trainer.health.steps import BadSteps
    from trainer.loop import Progress, StageRun, train
    from trainer.runtime import StopFlag, start
    from trainer.tracking.tracker import Tracker

    config, _ = build_config("gimp", None, [*WORDS, f"zero.stage={stage}", f"out={folder / str(stage)}"])
    out_folder(config).mkdir(parents=True)
    runtime = start()
    data = open_data(config)
    method = build_method(config, data)
    method.enter("pretrain")
    twin = copy.deepcopy(method)
    plan = method.stages()[-1]
    engine = Engine(method, config, "pretrain", runtime)
    loader = data.loader(config, plan, engine.method, runtime)
    per_epoch = data.plan(config, plan).steps_per_epoch
    steps = iter(loader.iterate())
    batches = [next(steps).micro[0] for _ in range(per_epoch)]
    steps.close()
    never, nothing = 10**9, (lambda: None)
    stage_run = StageRun(
        plan,
        0,
        per_epoch,
        never,
        never,
        loader,
        lambda e, s: [],
        None,
        lambda *_: {},
        {},
        nothing,
        nothing,
        nothing,
        done=lambda updates: 0.0,
    )
    progress, tracker = Progress(), Tracker(out_folder(config), runtime, 0, most, 10**9, True)

    def run(count: int) -> None:
        here = replace(stage_run, steps=progress.stage_step + count)
        train(here, engine, runtime, progress, tracker, StopFlag(), BadSteps(0))

    return run, twin, batches


def timed(run: Callable[[int], None], steps: int) -> float:
    began = time.perf_counter()
    run(steps)
    return (time.perf_counter() - began) / steps


def main() -> int:
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=8)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for stage in (0, 1):
            loop, twin, batches = ours(Path(folder), stage, args.rounds * args.steps)
            plain = bare(twin, batches, 1e-4)
            timed(plain, 2), timed(loop, 2)
            pairs = []
            for r in range(args.rounds):
                order = (plain, loop) if r % 2 == 0 else (loop, plain)
                times = {f: timed(f, args.steps) for f in order}
                pairs.append((times[plain], times[loop]))
            ratio = statistics.median(b / a for a, b in pairs)
            a, b = (statistics.median(t) * 1e3 for t in zip(*pairs, strict=True))
            print(
                f"ZeRO {stage}: bare {a:.0f} ms a step, ours {b:.0f} ms; overhead {ratio - 1:+.1%} (median of {args.rounds} pairs)"
            )
    return 0


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
    status = main()
    sys.stdout.flush()
    os._exit(status)

"""What our training loop costs over a bare PyTorch loop, and over a bare DeepSpeed loop: same model, same batches, same threads.

    OMP_NUM_THREADS=1 python tests/benchmarks/trainer.py [--sizes 50 450] [--stages 0 1] [--rounds 5] [--steps 12]

Three rivals alternate in one process, each with a copy of the model of its own:

bare        batches in memory; forward, backward, clip, AdamW, the loss as a number
deepspeed   the same with DeepSpeed's engine under our own dictionary of it, as its documentation has the loop
ours        the whole of it: that engine, the loader's threads, agreement, metrics.jsonl, TensorBoard, collapse monitors

Times are of the processor, so that other work on the machine counts little: those of the main thread, which are what a step takes
where reader threads have a core of their own, and those of the whole process. A step's time is the least of its rounds. The
phases of ours are those of the loop (trainer/loop.py); `of it` are calls within them.

Aim: at most 2 % at steps of 450 ms, 8 % at 50 ms.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

SIZES = {
    50: ["method.dim=128", "method.heads=4", "method.window=256", "global_batch=4"],
    450: ["method.dim=384", "method.heads=6", "method.window=384", "global_batch=8"],
}
"""By what a bare step takes about, in ms, on a core of 2024."""
WORDS = ["method.landmarks=64", "method.dropout=0.0", "log.tensorboard=true"]
Step = Callable[[int], None]
"""Runs a rival for so many steps."""


@dataclass
class Clock:
    """Processor seconds of one rival by (step, phase), the least of its rounds."""

    least: dict[tuple[int, str], float] = field(default_factory=dict)
    spent: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    step: int = 0
    phase: str = ""
    main: float = 0.0
    all: float = 0.0

    def begin(self, step: int, phase: str) -> None:
        """A phase begins, and with another step the step before ends."""
        main, everything = time.thread_time(), time.process_time()
        if self.phase:
            self.spent[self.phase] += main - self.main
            self.spent["main thread"] += main - self.main
            self.spent["process"] += everything - self.all
        if step != self.step:
            self._end()
            self.step = step
        self.phase = phase
        self.main, self.all = time.thread_time(), time.process_time()

    def stop(self) -> None:
        self.begin(-1, "")
        self.step, self.phase = 0, ""

    def _end(self) -> None:
        for phase, seconds in self.spent.items():
            at = (self.step, phase)
            self.least[at] = min(seconds, self.least.get(at, seconds))
        self.spent.clear()

    def within(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, whose time is noted beside that of its phase."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.spent[f"of it: {name}"] += time.thread_time() - began

        return timed

    def ms(self, phase: str, steps: range) -> float:
        """Mean over the steps, in ms."""
        return sum(self.least.get((s, phase), 0.0) for s in steps) / len(steps) * 1e3


def bare(method: Any, batches: list[Any], clock: Clock, lr: float) -> Step:
    """A plain loop over batches in memory."""
    params = [p for p in method.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(params, lr=lr)

    def run(steps: int) -> None:
        method.train()
        for i in range(steps):
            clock.begin(i + 1, "forward and backward")
            loss = method(batches[i]).total
            loss.backward()
            loss.item()
            clock.begin(i + 1, "update")
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            adam.step()
            adam.zero_grad()
        clock.stop()

    return run


def with_deepspeed(engine: Any, batches: list[Any], clock: Clock) -> Step:
    """DeepSpeed's own loop over batches in memory."""
    params = [p for p in engine.module.parameters() if p.requires_grad]
    clips = engine.gradient_clipping() == 0

    def run(steps: int) -> None:
        engine.train()
        for i in range(steps):
            clock.begin(i + 1, "forward and backward")
            loss = engine(batches[i]).total
            engine.backward(loss)
            loss.item()
            clock.begin(i + 1, "update")
            if clips:
                torch.nn.utils.clip_grad_norm_(params, 1.0)
            engine.step()
        clock.stop()

    return run


def rivals(size: int, folder: Path, stage: int, steps: int, clocks: dict[str, Clock]) -> dict[str, Step]:
    """The three of them on the demo cohort, from the same weights."""
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.config.schema import out_folder
    from trainer.data import open_data
    from trainer.engine.engine import Engine
    from trainer.health.steps import BadSteps
    from trainer.health.watchdog import Watchdog
    from trainer.loop import Progress, StageRun, train
    from trainer.runtime import StopFlag, start
    from trainer.state import fence
    from trainer.tracking.tracker import Tracker

    config, _ = build_config("gimp", None, [*SIZES[size], *WORDS, f"zero.stage={stage}", f"out={folder}/run"])
    out = out_folder(config)
    out.mkdir(parents=True)
    fence.take(out, fence.Life.here())
    runtime = start()
    data = open_data(config)
    method = build_method(config, data)
    method.enter("pretrain")
    twins = [copy.deepcopy(method) for _ in range(2)]
    plan = method.stages()[-1]
    engine = Engine(method, config, "pretrain", runtime)
    loader = data.loader(config, plan, engine.method, runtime)
    ahead = loader.iterate()
    # Copied: a loader uses the memory of a batch again.
    batches = [copy.deepcopy(next(ahead).micro[0]) for _ in range(steps)]
    ahead.close()
    clock, never, nothing = clocks["ours"], 10**9, (lambda: None)
    watchdog = Watchdog(out, 0, 1, config.health, Watchdog.prepare(out, config.health))
    tracker = Tracker(out, runtime, 0, never, never, True)

    def at(phase: str, step: int) -> None:
        watchdog.at(phase, step)
        clock.begin((step - 1) % steps + 1, phase)

    per_epoch = data.plan(config, plan).steps_per_epoch
    stage_run = StageRun(
        plan, 0, per_epoch, never, never, loader, lambda e, s: [], None, lambda *_: {}, {}, nothing, nothing, nothing,
        done=lambda updates: 0.0, at=at, schedule_steps=never,
    )  # fmt: skip
    progress = Progress()
    _look_inside(clock, engine, tracker, fence)

    def ours(count: int) -> None:
        progress.step = progress.stage_step = 0  # the same batches each round
        train(replace(stage_run, steps=count), engine, runtime, progress, tracker, StopFlag(), BadSteps(0))
        clock.stop()

    second = Engine(twins[1], config, "pretrain", runtime).deepspeed
    lr = config.optim_of("pretrain").lr
    return {
        "bare": bare(twins[0], batches, clocks["bare"], lr),
        "deepspeed": with_deepspeed(second, batches, clocks["deepspeed"]),
        "ours": ours,
    }


def _look_inside(clock: Clock, engine: Any, tracker: Any, fence: Any) -> None:
    """Notes what calls of ours and of DeepSpeed take within their phases."""
    import trainer.loop as loop
    import trainer.tracking.tracker as tracking

    inner = engine.deepspeed
    for name, on, attribute in (
        ("forward", engine, "forward"),
        ("backward", engine, "backward"),
        ("DeepSpeed's step", inner, "step"),
        ("sum over ranks", loop, "agree_sum"),
        ("means of terms", loop, "_means"),
        ("features", loop, "_features"),
        ("collapse monitors", loop, "collapse_readings"),
        ("line of metrics", tracker, "step"),
        ("TensorBoard", tracker.board, "scalars"),
        ("fence", tracking.fence, "check"),
    ):
        setattr(on, attribute, clock.within(name, getattr(on, attribute)))


def measure(size: int, stage: int, rounds: int, steps: int) -> None:
    clocks = {name: Clock() for name in ("bare", "deepspeed", "ours")}
    with tempfile.TemporaryDirectory() as folder:
        runs = rivals(size, Path(folder), stage, steps, clocks)
        for run in runs.values():
            run(2)
        for clock in clocks.values():
            clock.least.clear()
        gc.collect()
        for r in range(rounds):
            names = list(runs)
            for name in names[r % 3 :] + names[: r % 3]:
                runs[name](steps)
    print(_table(size, stage, clocks, range(2, steps + 1)), flush=True)


def _table(size: int, stage: int, clocks: dict[str, Clock], steps: range) -> str:
    """Not of the first step, in which ours starts its readers."""
    whole = {n: c.ms("main thread", steps) for n, c in clocks.items()}
    process = {n: c.ms("process", steps) for n, c in clocks.items()}
    over = {n: f"{whole[n] / whole['bare'] - 1:+.1%}" for n in clocks}
    lines = [f"size {size}, ZeRO {stage}: ms a step", *(
        f"  {n:<10} main thread {whole[n]:8.2f} ({over[n]})   process {process[n]:8.2f}" for n in clocks
    )]  # fmt: skip
    phases = dict.fromkeys(p for c in clocks.values() for _, p in c.least if p not in ("main thread", "process"))
    for phase in phases:
        parts = "".join(f"{c.ms(phase, steps):>11.2f}" for c in clocks.values())
        lines.append(f"  {phase:<24}{parts}")
    return "\n".join(lines)


def main() -> int:
    p = argparse.ArgumentParser()
    p.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    p.add_argument("--stages", type=int, nargs="+", default=[0, 1])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=12)
    args = p.parse_args()
    for size in args.sizes:
        for stage in args.stages:
            measure(size, stage, args.rounds, args.steps)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
    status = main()
    sys.stdout.flush()
    os._exit(status)

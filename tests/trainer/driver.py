"""Runs launch/pretrain.py with faults planted in its own process: `python driver.py '{"die": {...}}' ARGS...`.

Faults (`step` counts steps of the whole run, from 1; `rank` defaults to all; `of`: only in a run whose folder ends so, since a
fine-tune is several runs):
    die      {step}                    SIGKILL after that step is logged
    signal   {step, name, rank|group}  a signal to that rank, or by rank 0 to the whole process group
    loss     {step, value, rank}       the loss becomes nan or inf
    grad     {step, value, rank}       every gradient of that rank becomes nan or inf; the loss stays finite
    features {splits, name, rank}      that signal to that rank once it has the features of so many splits (probes)
    full     {step, rank}              from that step on no file of this rank can grow beyond 1 kB
    block    {step, rank, seconds}     the forward pass of that step waits for so long (for ever without seconds)
    slow     {rank, seconds, step}     every save and evaluation takes so long, and once the wait for data
    late     {rank}                    no save is written in the background before somebody waits for it
    prompt   {}                        every save in the background is written before the next step begins
    interrupt {step, rank}             a second SIGINT once the save of that step is being written; on that rank it is never written
    impatient {seconds}                DeepSpeed's own limit for a collective, in place of ten minutes
    states   {to, at}                  no fault: writes down all that a rank holds, at the save of that step (of every one) and after
                                       every load; `convert` too
    convert  {}                        no fault: checkpoints of other numbers of ranks are converted in this process, which has loaded
                                       what that takes
    half     {}                        no fault: a CPU trains in float16, slowly
    preloaded {}                       no fault: what forks a sweep's points is itself forked, from this process
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from typing import Any


def this_rank() -> int:
    """Asked when needed: forking.py loads this before the ranks exist."""
    return int(os.environ.get("RANK", "0"))


def mine(fault: dict[str, Any]) -> bool:
    return fault.get("rank", this_rank()) == this_rank()


def plant(faults: dict[str, dict[str, Any]]) -> None:
    import torch

    from trainer.engine.engine import Engine
    from trainer.tracking.tracker import Tracker

    log, forward = Tracker.step, Engine.forward
    upcoming = [0]

    def step(self: Tracker, row: dict[str, Any]) -> None:
        log(self, row)
        upcoming[0] = row["step"] + 1
        after_step(faults, row["step"], str(self.out))

    def poisoned(self: Engine, batch: Any) -> Any:
        planted_block(faults.get("block"), upcoming[0] or 1)
        out = forward(self, batch)
        if torch.is_grad_enabled():
            poison(faults, out, upcoming[0] or 1)
        return out

    Tracker.step, Engine.forward = step, poisoned  # type: ignore[method-assign]
    if "impatient" in faults:
        lose_patience(faults["impatient"]["seconds"])
    if "convert" in faults:
        convert_here()
    if "half" in faults:
        train_in_half()
    if "preloaded" in faults:
        from tests.trainer.loaded import fork_the_forking_one

        fork_the_forking_one()
    if "states" in faults:
        keep_states(faults["states"])
    if "features" in faults:
        signal_after(faults["features"])
    if "slow" in faults and mine(faults["slow"]):
        slow_down(faults["slow"])
    if "late" in faults and mine(faults["late"]):
        write_late()
    if "prompt" in faults:
        write_at_once()
    if "interrupt" in faults:
        interrupt(faults["interrupt"])


def lose_patience(seconds: float) -> None:
    from datetime import timedelta

    import deepspeed

    init = deepspeed.init_distributed
    deepspeed.init_distributed = lambda *args, **kwargs: init(
        *args, **{"timeout": timedelta(seconds=seconds), **kwargs}
    )


def train_in_half() -> None:
    from deepspeed.accelerator import get_accelerator

    from trainer import runtime

    cpu = type(get_accelerator())
    cpu.is_fp16_supported = lambda self: True
    runtime.has_half = lambda: True


def keep_states(fault: dict[str, Any]) -> None:
    """`to`/saved-STEP-RANK.pt (of step `at`, if it is there) and `to`/loaded-STEP-RANK.pt."""
    import torch

    from trainer.state.checkpoint import Checkpoints

    save, restore = Checkpoints.save, Checkpoints.restore

    def saved(self: Any, engine: Any, step: int, *rest: Any) -> Any:
        if step == fault.get("at", step):
            torch.save(whole_state(engine), f"{fault['to']}/saved-{step}-{this_rank()}.pt")
        return save(self, engine, step, *rest)

    def restored(self: Any, engine: Any, path: Any, same_world: bool) -> None:
        restore(self, engine, path, same_world)
        step = int(path.name.removeprefix("step-"))
        torch.save(whole_state(engine), f"{fault['to']}/loaded-{step}-{this_rank()}.pt")

    Checkpoints.save, Checkpoints.restore = saved, restored  # type: ignore[method-assign]
    convert_here()


def write_late() -> None:
    from trainer.state.writer import Writer

    start, wait, asked = Writer.start, Writer.wait, threading.Event()

    def late(self: Writer, work: Any) -> None:
        asked.clear()
        start(self, lambda: (asked.wait(), work())[1])

    def waiting(self: Writer) -> None:
        asked.set()
        wait(self)

    Writer.start, Writer.wait = late, waiting  # type: ignore[method-assign]


def write_at_once() -> None:
    from trainer.state.writer import Writer

    start = Writer.start

    def prompt(self: Writer, work: Any) -> None:
        start(self, work)
        assert self._thread is not None
        self._thread.join()

    Writer.start = prompt  # type: ignore[method-assign]


def interrupt(fault: dict[str, Any]) -> None:
    from trainer.state.checkpoint import Checkpoints

    write = Checkpoints._write

    def interrupted(self: Any, taken: Any, group: Any) -> None:
        if taken.step == fault["step"]:
            os.kill(os.getpid(), signal.SIGINT)
            if mine(fault):
                threading.Event().wait()
        write(self, taken, group)

    Checkpoints._write = interrupted  # type: ignore[method-assign]


def convert_here() -> None:
    from deepspeed.checkpoint import ds_to_universal

    from trainer.state import restoring, universal

    def convert(source: Any, target: Any, stage: int) -> None:
        sys.argv = ["ds_to_universal", *universal.conversion(source, target, stage)]
        ds_to_universal.main(ds_to_universal.parse_arguments())

    restoring.to_universal = convert


def whole_state(engine: Any) -> dict[str, Any]:
    """Every parameter and buffer of the state dict as this rank uses it, what stands behind a trained one, Adam's moments."""
    from contextlib import nullcontext

    from deepspeed.runtime.zero.partition_parameters import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    trained = {id(p) for g in engine.groups for p in g.params}
    sharded = engine.config.zero.stage > 0
    out = {n: b.clone() for n, b in engine.method.named_buffers() if n in engine.method.state_dict()}
    for name, p in engine.method.named_parameters():
        with GatheredParameters([p]) if hasattr(p, "ds_id") else nullcontext():
            out[name] = p.detach().clone()
        if id(p) in trained and sharded:
            out[f"{name} in float32"] = safe_get_full_fp32_param(p).detach().clone().reshape(-1)
            for moment in ("exp_avg", "exp_avg_sq"):
                out[f"{name} {moment}"] = whole_moment(engine, p, moment)
        elif id(p) in trained:
            kept = engine.deepspeed.optimizer.state[p]
            out |= {f"{name} {moment}": kept[moment].clone() for moment in ("exp_avg", "exp_avg_sq") if moment in kept}
    out |= {f"{name} average": average for name, average in engine.teachers.state().items()}
    return out


def whole_moment(engine: Any, p: Any, moment: str) -> Any:
    import torch
    import torch.distributed as dist
    from deepspeed.utils import safe_get_full_optimizer_state

    if hasattr(p, "ds_id"):
        return safe_get_full_optimizer_state(p, moment).detach().clone().reshape(-1)
    whole, place = torch.zeros(p.numel()), p._hp_mapping
    if place is not None:  # some of it is this rank's
        zero = engine.deepspeed.optimizer
        flat = zero.optimizer.state[zero.single_partition_of_fp32_groups[place.param_group_index]][moment]
        mine, theirs = place.lp_fragment_address, place.hp_fragment_address
        whole[mine.start : mine.start + mine.numel] = flat[theirs.start : theirs.start + theirs.numel]
    dist.all_reduce(whole)
    return whole


def signal_after(fault: dict[str, Any]) -> None:
    """As `signal`, after the features of so many splits were computed."""
    from trainer.downstream.probes import run as frozen

    extract, made = frozen.extract, [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        found = extract(*args, **kwargs)
        made[0] += 1
        if made[0] == fault["splits"] and mine(fault):
            os.kill(os.getpid(), getattr(signal, fault["name"]))
        return found

    frozen.extract = counted


def planted_block(fault: dict[str, Any] | None, step: int) -> None:
    if fault is not None and fault["step"] == step and mine(fault):
        threading.Event().wait(fault.get("seconds"))


def slow_down(fault: dict[str, Any]) -> None:
    from shards.load.loader import Loader
    from trainer.data import Validation
    from trainer.state.checkpoint import Checkpoints

    def late(call: Any, step: int | None = None) -> Any:
        def slow(*args: Any, **kwargs: Any) -> Any:
            if step is None or args[-1] == step:
                time.sleep(fault["seconds"])
            return call(*args, **kwargs)

        return slow

    Checkpoints.save = late(Checkpoints.save)  # type: ignore[method-assign]
    Validation.evaluate = late(Validation.evaluate)  # type: ignore[method-assign]
    Loader._plan_step = late(Loader._plan_step, fault["step"])  # type: ignore[method-assign]


def after_step(faults: dict[str, dict[str, Any]], done: int, out: str) -> None:
    for kind, fault in faults.items():
        if fault.get("step") != done or not mine(fault) or not out.endswith(fault.get("of", "")):
            continue
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "signal":
            number = getattr(signal, fault["name"])
            if not fault.get("group"):
                os.kill(os.getpid(), number)
            elif this_rank() == 0:
                os.killpg(os.getpgrp(), number)
        if kind == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def poison(faults: dict[str, dict[str, Any]], out: Any, step: int) -> None:
    for kind in ("loss", "grad"):
        fault = faults.get(kind)
        steps = fault["step"] if fault and isinstance(fault["step"], list) else [fault["step"]] if fault else []
        if fault is None or step not in steps or not mine(fault):
            continue
        value = float(fault["value"])
        if kind == "loss":
            out["total"] = out["total"] + value
        else:
            out["total"].register_hook(lambda g, value=value: g * value)


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
    planted = json.loads(sys.argv[1])
    plant(planted)
    from launch.pretrain import main

    status = main(sys.argv[2:])
    sys.stdout.flush()
    os._exit(status)

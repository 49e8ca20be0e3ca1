"""Counts what each collective of one step is asked to move, for each ZeRO stage, and what the sockets of this rank sent meanwhile."""

from __future__ import annotations

import inspect
import json
import os
import socket
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORDS = [
    "method.dim=192",
    "method.heads=2",
    "method.window=24",
    "method.landmarks=8",
    "method.genes.groups=4",
    "global_batch=8",
]
# Without these DeepSpeed reduces a bucket to all ranks at once, and keeps gathered parameters until the backward pass.
OWNER = {"use_multi_rank_bucket_allreduce": False}
RELEASE = {"stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0, "stage3_param_persistence_threshold": 0}
CASES: list[tuple[int, dict[str, Any]]] = [(0, {}), (1, {}), (1, OWNER), (2, {}), (2, OWNER), (3, {}), (3, RELEASE)]
# A call -> the argument whose elements the formula counts: for all-gather the whole result, else the whole input.
COUNTED = {
    "all_reduce": 0, "reduce": 0, "broadcast": 0, "all_gather_into_tensor": 0, "all_gather_single": 0, "all_gather": 0,
    "reduce_scatter_tensor": 1, "reduce_scatter": 1, "all_to_all_single": 1,
}  # fmt: skip


class Calls:
    """Elements by (who asked, collective), while `on`. `who` is deepspeed, models or trainer: the first of them up the stack."""

    def __init__(self) -> None:
        self.on, self.inside, self.elements = False, False, Counter[tuple[str, str]]()

    def watch(self) -> None:
        """Wraps torch.distributed, before DeepSpeed looks its functions up."""
        import torch.distributed as dist
        from torch.distributed import distributed_c10d

        for name, position in COUNTED.items():
            if hasattr(dist, name):
                wrapped = self._wrap(name, position, getattr(dist, name))
                setattr(dist, name, wrapped)
                setattr(distributed_c10d, name, wrapped)

    def _wrap(self, name: str, position: int, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            outer, self.inside = self.inside, True
            if self.on and not outer:  # one collective may be made of another
                found = inspect.signature(call).bind(*args, **kwargs).args[position]
                tensors = found if isinstance(found, list) else [found]
                self.elements[asker(), name] += sum(t.numel() for t in tensors)
            try:
                return call(*args, **kwargs)
            finally:
                self.inside = outer

        return counted


def asker() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").split(".")[0]
        if package in ("deepspeed", "models", "trainer"):
            return package
        frame = frame.f_back
    return "other"


def sent() -> int:
    """Payload bytes that the TCP sockets of this process have sent so far (tcpi_bytes_sent of Linux's tcp_info)."""
    return sum(tcp_sockets())


def tcp_sockets() -> Iterator[int]:
    for name in os.listdir("/proc/self/fd"):
        try:
            fd = int(name)
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            with socket.socket(fileno=os.dup(fd)) as s:
                if s.family in (socket.AF_INET, socket.AF_INET6) and s.type == socket.SOCK_STREAM:
                    info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    yield int.from_bytes(info[200:208], "little")
        except OSError:
            continue


def main(words: list[str]) -> int:
    folder = Path(words[0])
    calls = Calls()
    calls.watch()
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data
    from trainer.engine.engine import Engine
    from trainer.runtime import barrier, finish, start

    runtime, found = start(), []
    for stage, zero in CASES:
        config, _ = build_config("gimp", None, [*WORDS, f"zero.stage={stage}"])
        if zero:
            config = config.model_copy(update={"deepspeed": {"zero_optimization": zero}})
        data = open_data(config)
        method = build_method(config, data)
        method.enter("pretrain")
        psi = sum(p.numel() for p in method.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in method.parameters() if not p.requires_grad)
        engine = Engine(method, config, "pretrain", runtime)
        loader = data.loader(config, method.stages()[-1], engine.method, runtime)
        steps = iter(loader.iterate())
        for counted in (False, False, True):  # stage 3 learns its order of parameters in the first passes
            batch = next(steps).micro[0]
            barrier()
            calls.on, before = counted, sent()
            engine.backward(engine.forward(batch).total)
            engine.update(1e-4)
            calls.on = False
            barrier()
            wire = sent() - before
        whole = sum(p.ds_numel for p in method.parameters() if getattr(p, "ds_persist", False))
        elements = {" ".join(k): v for k, v in calls.elements.items()}
        calls.elements.clear()
        found.append(
            {
                "stage": stage,
                "paper": bool(zero),
                "psi": psi,
                "frozen": frozen,
                "whole": whole,
                "elements": elements,
                "wire": wire,
            }
        )
        loader.close()
        engine.close()
    (folder / f"rank{runtime.rank}.json").write_text(json.dumps(found))
    finish()
    return 0

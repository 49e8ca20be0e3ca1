"""Blocks of a network compiled by torch.compile (inductor), where the machine can: `compile=auto`.

What is compiled is each block of a list of blocks, by itself and in its place: parameters keep their names, states and checkpoints stay
what they are, losses and what gathers over ranks stay outside, and blocks of one kind share their code. Sizes are symbols from the first
call on, so that bags of other lengths meet the same code. Random numbers are drawn as PyTorch draws them uncompiled.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.mamba import Mamba
from models.layers.nystrom import LongAttention
from trainer.config.shared import Compile
from trainer.runtime import Runtime, agree_sum

CLOSE = 1e-5
"""Largest difference of a compiled function that passes, of the largest value."""
MOST = 64
"""Graphs of one piece of code; for what comes further it runs uncompiled."""
OUTSIDE = (Mamba, LongAttention)
"""Modules of which no part is compiled: a scan is a kernel of its own, and long attention goes by each bag's length in Python."""
LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


@dataclass
class Compiled:
    """Blocks of a network that are compiled; `before`: graphs that the process had compiled before it."""

    blocks: list[nn.Module]
    say: Callable[[str], None]
    before: int = 0
    told: bool = False

    def readings(self) -> dict[str, float]:
        """Of a step, for the log of steps: graphs so far, 0 where nothing is compiled. Says once when there are too many."""
        graphs = _graphs() - self.before if self.blocks else 0
        if graphs >= MOST and not self.told:
            self.told = True
            self.say(
                f"compile=auto: {graphs} graphs are compiled by now, as the sizes of these data change in too many ways; blocks that "
                f"have {MOST} run uncompiled in any further way: compile=off may be the faster one"
            )
        return {"compiled_graphs": graphs}

    def watch(self, compiling: Callable[[bool], None]) -> None:
        """`compiling` is told when this process begins to compile, and when it goes on: a step may wait minutes for it."""
        if self.blocks:
            torch._dynamo.on_compile_start(lambda _: compiling(True))
            torch._dynamo.on_compile_end(lambda _: compiling(False))

    def close(self) -> None:
        """Lets go of what was compiled, and of who watches, so that another network of this process begins as the first did."""
        if self.blocks:
            torch._dynamo.reset()


def compiled(compile: Compile, network: nn.Module, runtime: Runtime) -> Compiled | None:
    """Compiles the blocks of `network` from their next call on, on all ranks or on none; None where nobody asks for it. All ranks call."""
    if compile == "off":
        return None
    reason = why_not(runtime.device.type)
    if agree_sum({"cannot": float(bool(reason))}, runtime.device)["cannot"]:
        runtime.say(f"compile=auto: the network runs uncompiled ({reason or 'the machine of another rank cannot'})")
        return Compiled([], runtime.say)
    _allow()
    found = list(blocks(network))
    for block in found:
        block.compile(dynamic=True, options={"fallback_random": True})
    kinds = ", ".join(sorted({type(b).__name__ for b in found}))
    runtime.say(
        f"compile=auto: {len(found)} blocks ({kinds}) are compiled in their first steps, which take longer"
        if found
        else f"compile=auto: the network runs uncompiled ({type(network).__name__} has no list of blocks that can be)"
    )
    return Compiled(found, runtime.say, _graphs())


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Members of lists that have parts of their own, and hold nothing that stays outside; the outermost ones."""
    for child in network.children():
        member = isinstance(network, LISTS) and not isinstance(child, LISTS) and any(True for _ in child.children())
        if member and not any(isinstance(m, OUTSIDE) for m in child.modules()):
            yield child
        elif not isinstance(child, OUTSIDE):
            yield from blocks(child)


@functools.lru_cache
def why_not(device: str) -> str:
    """Why nothing is compiled for this kind of device; "" where it is: after a small function was, and gave what it gives uncompiled."""
    if reason := missing(device):
        return reason
    try:
        worst = largest_error(device)
    except Exception as e:
        return f"torch.compile does not work here ({type(e).__name__}: {' '.join(str(e).split())[:120]})"
    return "" if worst <= CLOSE else f"a compiled function is off by {worst:.0e} here"


def missing(device: str) -> str:
    """What a machine lacks to compile for this kind of device, by a quick look; "" where all is there."""
    if device == "cpu":
        cxx = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        return "" if shutil.which(cxx) else f"no C++ compiler: {cxx} is not on PATH"
    return "" if find_spec("triton") else "Triton is not installed (a CUDA build of PyTorch brings it)"


def largest_error(device: str) -> float:
    """Of a small function, compiled, of the largest value."""
    _allow()
    x = torch.linspace(-3, 3, 16 * 33, device=device).view(16, 33)
    with torch._dynamo.config.patch(suppress_errors=False):
        found = torch.compile(_small, dynamic=True, fullgraph=True)(x)
    return float((found - _small(x)).abs().max() / _small(x).abs().max())


@torch.no_grad()
def _small(x: Tensor) -> Tensor:
    return F.gelu(x) * x.softmax(-1) + 1


def _allow() -> None:
    """Switches the compiler on, which runs without it switch off (trainer/runtime.py), and sets it up."""
    os.environ.pop("TORCHDYNAMO_DISABLE", None)
    # In this process: workers would outlive a rank that is killed.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_cache()))
    import torch._dynamo
    import torch._functorch.config
    import torch._inductor.config

    torch._inductor.config.compile_threads = int(os.environ["TORCHINDUCTOR_COMPILE_THREADS"])
    torch._dynamo.config.recompile_limit = MOST
    # What the compiler cannot take runs uncompiled, and torch says so on standard error. That is known in the forward pass alone, so the
    # backward pass is compiled there too.
    torch._dynamo.config.suppress_errors = True
    torch._functorch.config.force_non_lazy_backward_lowering = True


def _cache() -> Path:
    base = os.environ.get("MEDPAIR_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "medpair")
    return Path(base).expanduser() / "compiled"


def _graphs() -> int:
    """Graphs that this process has compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]

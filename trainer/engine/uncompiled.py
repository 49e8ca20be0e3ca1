"""Optimisers that do not load torch's compiler where it is switched off: two seconds and a thousand modules of every process.

torch marks methods of its optimisers as not to be compiled, and loads the compiler at their first call to say so. Which class an optimiser
is has a meaning for DeepSpeed, so the classes themselves get their methods back without the mark. What is not known by its shape (another
version of torch) stays as it is, and loads the compiler.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

import torch


def uncompiled(kind: type[torch.optim.Optimizer]) -> None:
    """For the optimisers of that class, before the first is made. Does nothing where something may be compiled."""
    if os.environ.get("TORCHDYNAMO_DISABLE") != "1" or "torch._dynamo" in sys.modules:
        return
    for cls in kind.__mro__:
        for name, method in list(vars(cls).items()):
            bare, code = getattr(method, "__wrapped__", None), getattr(method, "__code__", None)
            if bare is None or code is None:
                continue
            if code.co_filename == torch._compile.__file__:
                setattr(cls, name, bare)
            elif (name, code.co_name) == ("step", "_use_grad"):
                setattr(cls, name, _step(bare))
    _load_muon()


def _load_muon() -> None:
    """DeepSpeed's ZeRO asks of every optimiser whether it is Muon, whose module compiles a function when it is loaded."""
    compiles = torch.compile
    torch.compile = _as_it_is  # type: ignore[assignment]
    try:
        with contextlib.suppress(ImportError):
            import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        torch.compile = compiles


def _as_it_is(model: object = None, **settings: object) -> object:
    """What torch.compile comes to where it is switched off, as a decorator with or without arguments."""
    return _as_it_is if model is None else model


def _step(bare: Callable[..., object]) -> Callable[..., object]:
    """An update with gradients of its own switched on only where the optimiser is to be differentiated, as torch's wrapper does it."""

    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> object:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return bare(self, closure)

    return step

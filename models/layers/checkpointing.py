"""Activation checkpointing: one switch for every block that honours it. The trainer sets it before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import torch
from torch.utils.checkpoint import checkpoint

Args = TypeVarTuple("Args")
R = TypeVar("R")

_on = False


def set_activation_checkpointing(on: bool) -> None:
    """From now on blocks keep only their inputs in a training forward and compute the rest again in the backward."""
    global _on
    _on = on


def activation_checkpointing() -> bool:
    return _on


def checkpointed(block: Callable[[*Args], R], *args: *Args, always: bool = False) -> R:
    """`block(*args)`, recomputed in the backward when the switch is on (or `always`) and gradients are wanted.

    The non-reentrant form keeps the random state, so dropout draws the same values twice.
    """
    if (_on or always) and torch.is_grad_enabled():
        return checkpoint(block, *args, use_reentrant=False)
    return block(*args)

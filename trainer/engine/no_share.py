"""Groups of few weights on many ranks: some ranks hold none of a group, which DeepSpeed's load of a universal checkpoint cannot read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import nn


class _Nothing:
    """Stands in a group of which this rank holds nothing: DeepSpeed 0.19.8 asks the first of its tensors there how many steps were made."""

    def __init__(self) -> None:
        self._hp_mapping = self

    def load_hp_checkpoint_state(self, *_: object, **__: object) -> None:
        """Nothing to load, and no number of steps."""

    def get_optim_state_keys(self) -> list[str]:
        return []


class Sharding(Protocol):
    """What is used of DeepSpeed's optimizer of ZeRO 1 and 2."""

    bit16_groups: list[list[nn.Parameter | _Nothing]]
    param_names: dict[nn.Parameter | _Nothing, str]
    load_hp_checkpoint_state_from_checkpoint_dir: Callable[[str, str], None]


@contextmanager
def allowed(optimizer: Sharding | torch.optim.Optimizer) -> Iterator[None]:
    """While a universal checkpoint is loaded into DeepSpeed's optimizer of ZeRO 1 or 2; without such groups nothing changes."""
    groups = [g for g in getattr(optimizer, "bit16_groups", []) if all(p._hp_mapping is None for p in g)]
    if not groups:
        yield
        return
    optimizer = cast(Sharding, optimizer)
    load, nothing = optimizer.load_hp_checkpoint_state_from_checkpoint_dir, _Nothing()

    def loaded(groups_name: str, folder: str) -> None:
        # Here alone: what else reads the groups asks for sizes.
        optimizer.param_names[nothing] = ""
        for group in groups:
            group.append(nothing)
        try:
            load(groups_name, folder)
        finally:
            for group in groups:
                group.pop()
            del optimizer.param_names[nothing]

    optimizer.load_hp_checkpoint_state_from_checkpoint_dir = loaded
    try:
        yield
    finally:
        del optimizer.load_hp_checkpoint_state_from_checkpoint_dir

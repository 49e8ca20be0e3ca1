"""RAdam inside Lookahead, the optimiser of TransMIL (Liu et al. 2020, arXiv 1908.03265; Zhang et al. 2019, arXiv 1907.08610)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch.optim.optimizer import ParamsT

EVERY, ALPHA = 6, 0.5
"""Fast updates between two synchronisations, and how far the slow weights then go towards the fast ones."""


class RAdamLookahead(torch.optim.RAdam):
    """RAdam with decoupled weight decay; every 6th update slow weights go half the way to the fast ones, which start again from there.

    The first synchronisation only stores, as in the code that TransMIL was trained with: slow weights begin at the 6th update's, not at the
    first weights.
    """

    def __init__(self, params: ParamsT, **settings: Any):
        super().__init__(params, decoupled_weight_decay=True, **settings)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        result = super().step(closure)
        for p in (p for group in self.param_groups for p in group["params"]):
            state = self.state.get(p)
            # The count is the parameter's own, which a checkpoint brings back; one that has had no gradient has not moved.
            if not state or int(state["step"]) % EVERY:
                continue
            if "slow" in state:
                p.copy_(state["slow"].lerp_(p, ALPHA))
            else:
                state["slow"] = p.clone(memory_format=torch.preserve_format)
        return result

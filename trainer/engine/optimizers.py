"""Which optimiser a stage has, and who runs it: DeepSpeed's wrapper, or torch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from models.contract import Group
from trainer.config.schema import Config, Optim
from trainer.engine.lookahead import RAdamLookahead
from trainer.engine.uncompiled import uncompiled

KINDS: dict[str, Any] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "radam_lookahead": RAdamLookahead,
}
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1, "lars": 1, "radam_lookahead": 3}
"""float32 numbers that each keeps of a parameter."""
FUSED = ("adamw", "adam", "sgd")
"""They have one kernel for all parameters of a group."""


def plain(config: Config) -> bool:
    """Whether DeepSpeed runs the bare torch optimiser (fp32, nothing sharded): then norm and clipping are ours."""
    return config.zero.stage == 0 and config.precision == "fp32"


def one_kernel(config: Config, cuda: bool) -> bool:
    """Whether an update is one kernel where its optimiser has such. In fp32 a CPU's is not: its last bits would change."""
    # In 16 bits the master copy is one flat tensor: a kernel an operation would go over all of it eight times.
    return cuda or config.precision == "bf16"


def constants(optim: Optim) -> dict[str, Any]:
    """What an optimiser takes beside learning rate and weight decay."""
    if optim.kind in ("sgd", "lars"):
        return {"momentum": optim.betas[0]}
    return {"betas": optim.betas, "eps": optim.eps}


def make_optimizer(groups: Sequence[Group], optim: Optim, fused: bool) -> torch.optim.Optimizer:
    if optim.kind == "lars":
        return _lars(groups, optim)
    params = [{"params": g.params, "weight_decay": optim.weight_decay * g.decay_scale} for g in groups]
    uncompiled(KINDS[optim.kind])
    one: dict[str, Any] = {"fused": True if fused else None} if optim.kind in FUSED else {}
    return KINDS[optim.kind](params, lr=optim.lr, **one, **constants(optim))


def _lars(groups: Sequence[Group], optim: Optim) -> torch.optim.Optimizer:
    """LARS (You et al. 2017, algorithm 1): a tensor's rate is lr x 0.001 x |w| / (|g| + decay x |w|).

    Biases, norms and what else takes no weight decay have the plain rate (SimCLR, appendix B), a weight decay of 0 notwithstanding.
    """
    from timm.optim import Lars

    uncompiled(Lars)
    params = [
        {"params": g.params, "weight_decay": optim.weight_decay * g.decay_scale, "always_adapt": g.decay_scale > 0}
        for g in groups
    ]
    return Lars(params, lr=optim.lr, **constants(optim))

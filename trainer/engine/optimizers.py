"""Which optimiser a stage has, and who runs it: DeepSpeed's wrapper, or torch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from models.contract import Group
from trainer.config.schema import Config, Optim


def plain(config: Config) -> bool:
    """Whether DeepSpeed runs the bare torch optimiser (fp32, nothing sharded): then norm and clipping are ours."""
    return config.zero.stage == 0 and config.precision == "fp32"


def constants(optim: Optim) -> dict[str, Any]:
    """What an optimiser takes beside learning rate and weight decay."""
    if optim.kind == "sgd":
        return {"momentum": optim.betas[0]}
    return {"betas": optim.betas, "eps": optim.eps}


def make_optimizer(groups: Sequence[Group], optim: Optim, cuda: bool) -> torch.optim.Optimizer:
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    params = [{"params": g.params, "weight_decay": optim.weight_decay * g.decay_scale} for g in groups]
    return kinds[optim.kind](params, lr=optim.lr, fused=True if cuda else None, **constants(optim))

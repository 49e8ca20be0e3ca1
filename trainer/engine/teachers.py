"""Moving-average copies (teachers): each follows a part of the method, on whatever share of it this rank holds.

The update is elementwise, so under ZeRO-3 a rank averages its own shards and nothing is gathered.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.contract import Method
from trainer.config.schema import Config
from trainer.errors import UserError


def check_teachers(method: Method, config: Config) -> None:
    """Refuses what would lose the average.

    Raises:
        UserError: 16-bit weights: an update of a few thousandths is below their resolution.
    """
    if method.teachers() and config.precision != "fp32":
        raise UserError(
            f"precision={config.precision}: {method.name} keeps moving averages, which 16 bits would round away; use fp32"
        )


@torch.no_grad()
def update_teachers(method: Method) -> None:
    """teacher <- m teacher + (1 - m) student, for every parameter below each teacher's prefix."""
    params = dict(method.named_parameters())
    for prefix, (source, momentum) in method.teachers().items():
        for name, teacher in params.items():
            if not name.startswith(prefix + "."):
                continue
            student = params[source + name.removeprefix(prefix)]
            for mine, theirs in zip(_held(teacher), _held(student), strict=True):
                mine.lerp_(theirs, 1.0 - momentum)


def _held(p: nn.Parameter) -> list[Tensor]:
    """What this rank holds of a parameter: its shard under ZeRO-3, and the whole where that is kept too."""
    shard = getattr(p, "ds_tensor", None)
    if shard is None:
        return [p.data]
    whole = p.data.numel() == p.ds_numel  # type: ignore[attr-defined]
    return [shard, p.data] if whole else [shard]

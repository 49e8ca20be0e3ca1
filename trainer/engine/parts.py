"""What each rank holds of a method's tensors, told without a collective: whole tensors can be made of it later, by copies of the parts.

Used for the hashes of a checkpoint that is written while training goes on; `tensors.hashes` asks DeepSpeed for whole tensors instead,
which all ranks have to wait for, and gives the same hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.engine import tensors
from trainer.engine.optimizers import plain

if TYPE_CHECKING:
    from trainer.engine.engine import Engine


@dataclass
class Part:
    """This rank's part of a tensor: all of it (`start` is None), or values from flat position `start` on (may lie beyond its end)."""

    values: Tensor
    shape: torch.Size
    start: int | None = None

    def whole(self, group: dist.ProcessGroup | None) -> Tensor:
        """The tensor, in host memory; all ranks of the group must call."""
        if self.start is None:
            return self.values
        flat = torch.zeros(self.shape.numel(), dtype=self.values.dtype)
        mine = self.values.detach().reshape(-1)[: max(0, flat.numel() - self.start)]
        flat[self.start : self.start + mine.numel()] = mine
        if dist.get_world_size() > 1:
            # Every element is one rank's, and 0 on all others: sums of bits are its bits, in any type of number.
            dist.all_reduce(flat.view(torch.int32 if flat.element_size() == 4 else torch.uint8), group=group)
        return flat.view(self.shape)


Parts = dict[str, list[Part]]
"""By name: the tensor, and the float32 values behind it where some are kept apart."""


def parts(engine: Engine) -> Parts:
    """Of every parameter and buffer. All ranks must call: averages of 16-bit teachers are gathered."""
    found = {n: [_weight(engine, p), *_behind(engine, n, p)] for n, p in engine.method.named_parameters()}
    return found | {n: [Part(b, b.shape)] for n, b in tensors.buffers(engine.method).items()}


def kept(found: Parts, keep: Callable[[list[Tensor]], list[Tensor]]) -> Parts:
    """The same parts of copied values."""
    return {
        n: [Part(v, p.shape, p.start) for v, p in zip(keep([p.values.detach() for p in of]), of, strict=True)]
        for n, of in found.items()
    }


def hashes(found: Parts, group: dist.ProcessGroup | None) -> dict[str, str]:
    """Name -> hash, as `tensors.hashes` of the engine gave it when the parts were taken. All ranks of the group must call."""
    return {n: tensors.digest(*(p.whole(group) for p in of)) for n, of in found.items()}


def _weight(engine: Engine, p: nn.Parameter) -> Part:
    shard = getattr(p, "ds_tensor", None)
    if shard is None or p.data.numel() == p.ds_numel:  # type: ignore[attr-defined]
        return Part(p.data, p.shape)
    return Part(shard, p.ds_shape, engine.runtime.rank * shard.numel())  # type: ignore[attr-defined]


def _behind(engine: Engine, name: str, p: nn.Parameter) -> list[Part]:
    """As `tensors.master`."""
    from deepspeed.utils import safe_get_local_fp32_param

    average = engine.teachers.whole(name)
    if average is not None:
        return [Part(average, average.shape)]
    if plain(engine.config) or not engine.trains(p):
        return []
    if hasattr(p, "ds_id"):
        shard = safe_get_local_fp32_param(p)
        return [Part(shard, p.ds_shape, engine.runtime.rank * shard.numel())]  # type: ignore[attr-defined]
    if not hasattr(p, "_hp_mapping"):
        return []
    place = p._hp_mapping  # None where all of it is other ranks'
    if place is None:
        return [Part(torch.empty(0), p.shape, 0)]
    return [Part(place.get_hp_fragment(), p.shape, place.lp_fragment_address.start)]

"""Bytes of model state a rank holds: predicted from the ZeRO formulas, and counted on a live engine.

Psi trainable parameters, F frozen ones, N ranks, Adam. ZeRO (Rajbhandari et al., arXiv 1910.02054, section 3) in the form
that DeepSpeed 0.19 implements: a low-precision copy of w bytes that takes part in the forward pass, an fp32 master copy and
two fp32 moments; under fp32 the "low-precision" copy is fp32 too and DeepSpeed keeps the master besides it for stages 1-3.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from deepspeed.runtime.base_optimizer import ZeROOptimizer


@dataclass(frozen=True)
class StateBytes:
    """Bytes of a rank by what they hold. `optimizer` counts the master copy and both moments; `averages` are of teachers of 16 bits."""

    weights: int
    gradients: int
    optimizer: int
    persistent: int = 0
    averages: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))

    @property
    def saved(self) -> int:
        """What a checkpoint copies to host memory where it is written in the background: all but gradients."""
        return self.total - self.gradients


def predict(
    trainable: int,
    frozen: int,
    world: int,
    stage: int,
    precision: str,
    persistent: int = 0,
    moments: int = 2,
    followed: int = 0,
) -> StateBytes:
    """State bytes of a rank when a backward pass is complete, before the update.

    stage 0: w(Psi+F) weights, wPsi gradients, optimizer 8 Psi (fp32) or 12 Psi (a master copy as well)
    stage 1: weights as before, gradients wPsi (whole until they are reduced), optimizer 12 Psi/N
    stage 2: gradients wPsi/N
    stage 3: weights w(Psi+F)/N, gradients wPsi/N; besides, what is kept whole, which on one rank is its share itself

    Args:
        moments: float32 numbers that the optimiser keeps of a parameter (Adam two: 8 Psi above).
        persistent: parameters that stage 3 keeps whole on every rank (up to its persistence threshold).
        followed: parameters of teachers, of the frozen ones; in 16 bits their average is kept in float32 beside them.
    """
    w = 4 if precision == "fp32" else 2
    share = 1 if stage == 0 else world
    weights = w * (trainable + frozen) // (world if stage == 3 else 1)
    gradients = w * trainable // (world if stage >= 2 else 1)
    optimizer = 4 * (moments + (stage > 0 or precision != "fp32")) * trainable // share
    averages = 0 if precision == "fp32" else 4 * followed // (world if stage == 3 else 1)
    # On one rank DeepSpeed makes them views of the rank's share, which is whole.
    kept = w * persistent if stage == 3 and world > 1 else 0
    return StateBytes(weights, gradients, optimizer, kept, averages)


def count(engine: DeepSpeedEngine, stage: int) -> StateBytes:
    """The same bytes, counted on a DeepSpeed engine between `backward` and `step`, each storage once.

    Stage 1 lets go of other ranks' gradients as it reduces them: to see its peak, count before that.
    """
    module, optimizer = engine.module, engine.optimizer
    params = list(module.parameters())
    if stage == 3:
        shares = [p.ds_tensor for p in params]
        kept = [p.data for p in params if p.data.numel() == p.ds_numel and p.ds_numel > 0]
        # A storage counts once: on one rank what is kept whole lies in the buffer of all shares.
        weights, persistent = _bytes(shares), _bytes([*shares, *kept]) - _bytes(shares)
    else:
        weights, persistent = _bytes([p.data for p in params]), 0
    inner = optimizer if stage == 0 else optimizer.optimizer
    moments = [v for state in inner.state.values() for v in state.values() if torch.is_tensor(v) and v.dim() > 0]
    masters: list[torch.Tensor] = []
    if stage in (1, 2):
        masters = list(optimizer.single_partition_of_fp32_groups)
    elif stage == 3:
        masters = list(optimizer.fp32_partitioned_groups_flat)
    gradients = _gradients(optimizer, params, stage)
    held = sum(g.numel() * g.element_size() for g in gradients) if stage >= 2 else _bytes(gradients)
    return StateBytes(weights, held, _bytes(moments + masters), persistent)


def border(engine: DeepSpeedEngine, stage: int) -> int:
    """Named buffer: bytes of gradients beyond a rank's share. DeepSpeed keeps a tensor that straddles two ranks' shares whole."""
    gradients = _gradients(engine.optimizer, list(engine.module.parameters()), stage)
    return _bytes(gradients) - sum(g.numel() * g.element_size() for g in gradients) if stage >= 2 else 0


def bucket_bytes(bucket: int, stage: int, precision: str, overlap: bool) -> int:
    """Named buffer: what gradients are copied into to be reduced, a second one where communication overlaps."""
    return 0 if stage == 0 else bucket * (4 if precision == "fp32" else 2) * (2 if overlap else 1)


def _gradients(optimizer: ZeROOptimizer, params: list[torch.nn.Parameter], stage: int) -> list[torch.Tensor]:
    """Wherever DeepSpeed keeps them: on the parameters (under one of two names) or in the partition's own buffers."""
    found = [g for p in params for g in (p.grad, getattr(p, "grad_accum", None)) if g is not None]
    if stage:
        groups = optimizer.averaged_gradients.values()
        found += [g for group in groups if group is not None for g in group if g is not None]
    return found


def _bytes(tensors: list[torch.Tensor]) -> int:
    seen: dict[int, int] = {}
    for t in tensors:
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
    return sum(seen.values())

"""Values over all ranks, with the right gradient. The one place where a model knows that it is not alone.

DeepSpeed averages gradients over the W ranks. So a rank's contribution to a mean over the global batch must enter its own
loss W times as strongly as its value says; `global_mean` and `gather` see to that, and losses built from them have the same
value on every rank and the same averaged gradient whatever W is.

Shape letters: B samples of this rank, G = W x B samples of all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

# torch 2.14 renames it and warns about the old name.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within it every rank computes for itself, as if it were the only one (the probe batch after a resume)."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def world_size() -> int:
    if _alone.get() or not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size()


class _Rows(Protocol):
    """What `_Gather` keeps for its backward: rows of a rank, and which rank this is."""

    rows: int
    rank: int


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Rows, x: Tensor) -> Tensor:
        W = dist.get_world_size()
        ctx.rows, ctx.rank = x.shape[0], dist.get_rank()
        out = x.new_empty((W * x.shape[0], *x.shape[1:]))
        _all_gather(out, x.contiguous())
        return out

    @staticmethod
    def backward(ctx: _Rows, *grads: Tensor) -> Tensor:
        # Every rank holds the same loss over the gathered rows; the sum over ranks is W times the gradient of that one loss
        # and DeepSpeed's mean over ranks takes the W away again.
        g = grads[0].contiguous().clone()
        dist.all_reduce(g)
        return g[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows]


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order, [B, ...] -> [G, ...]; the gradient flows back to the rank that made the row."""
    if world_size() == 1:
        return x
    if x.requires_grad:
        return _Gather.apply(x)
    out = x.new_empty((world_size() * x.shape[0], *x.shape[1:]))
    _all_gather(out, x.contiguous())
    return out


def own_rows(x_G: Tensor) -> Tensor:
    """This rank's rows of what all ranks hold alike, [G, ...] -> [B, ...]: the inverse of `gather`."""
    W = world_size()
    return x_G if W == 1 else x_G.chunk(W)[dist.get_rank()]


def total(x: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


class _GlobalSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        # What each rank made of the sum depends on every rank's part; see `_Gather` for the factor W.
        g = grads[0].contiguous().clone()
        dist.all_reduce(g)
        return g


def global_sum(x: Tensor) -> Tensor:
    """Sum over ranks, elementwise; the gradient of what every rank computes from it flows back to each rank's part."""
    return x if world_size() == 1 else _GlobalSum.apply(x)


def global_mean(sum_: Tensor, count: Tensor) -> Tensor:
    """Mean over all ranks of something whose local sum and local count are given (both scalars).

    The value is the same on every rank; 0 where the global count is 0. Gradient: see the module's head.
    """
    W = world_size()
    if W == 1:
        return sum_ / count.clamp_min(torch.finfo(torch.float32).tiny) if float(count) > 0 else sum_ * 0.0
    both = total(torch.stack([sum_.detach().double(), count.detach().double()]))
    if float(both[1]) == 0.0:
        return sum_ * 0.0
    n = both[1].to(sum_.dtype)
    value = both[0].to(sum_.dtype) / n
    local = sum_ * (W / n)
    return value + (local - local.detach())


def global_means(sum_K: Tensor, count_K: Tensor) -> Tensor:
    """`global_mean` of K things at once, [K]: of each its own sum and count; 0 where a count is 0 on all ranks."""
    W = world_size()
    totals_2K = total(torch.stack([sum_K.double(), count_K.double()]))
    n_K = torch.where(totals_2K[1] > 0, totals_2K[1], 1.0)
    value_K = (totals_2K[0] / n_K).to(sum_K.dtype)
    local_K = sum_K * (W / n_K).to(sum_K.dtype) * (totals_2K[1] > 0)
    return value_K + (local_K - local_K.detach())

"""Batch norm over all ranks that knows which samples count (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 1).

Statistics of a padded or missing sample would move every other sample's output, and those of one rank alone would depend on how
many ranks there are. Here mean and variance are those of the counted samples of all ranks, with their gradient, in float32; with one
rank and no padding they are `torch.nn.BatchNorm`'s. (torch's SyncBatchNorm knows no weights and runs on CUDA alone.)

Shape letters: B samples of this rank, C channels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import MethodError
from models.parallel import global_sum

_counted: ContextVar[Tensor | None] = ContextVar("counted", default=None)


@contextmanager
def counted(weight_B: Tensor) -> Iterator[None]:
    """Within it, batch norms take their statistics over samples of weight above 0. Stacked views need their weights stacked alike."""
    token = _counted.set(weight_B)
    try:
        yield
    finally:
        _counted.reset(token)


def _wide(t: Tensor) -> Tensor:
    """float32 of 16 bits; what is wider stays."""
    return t if t.dtype == torch.float64 else t.float()


class _GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """`torch.nn.BatchNorm` with the same arguments, weights and buffers; see the module's head.

    Raises:
        ValueError: in training, fewer than two counted values a channel over all ranks: nothing varies.
    """

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not self.training and self.running_mean is not None:
            # An engine in half precision may keep running numbers in float32 beside 16-bit weights; torch takes no such mixture.
            mean_C, var_C, weight_C, bias_C = (
                t if t is None else _wide(t) for t in (self.running_mean, self.running_var, self.weight, self.bias)
            )
            return F.batch_norm(x, mean_C, var_C, weight_C, bias_C, False, 0.0, self.eps)
        mean_C, var_C, count = self._statistics(x)
        if self.training and self.track_running_stats:
            self._remember(mean_C.detach(), var_C.detach(), count)
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale_C = torch.rsqrt(var_C + self.eps)
        scale_C = scale_C if self.weight is None else scale_C * _wide(self.weight)
        shift_C = -mean_C * scale_C
        shift_C = shift_C if self.bias is None else shift_C + _wide(self.bias)
        return (_wide(x) * scale_C.view(shape) + shift_C.view(shape)).to(x.dtype)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and biased variance [C] of counted samples of all ranks, and how many values each is of."""
        # Delicate sums: squares of 16-bit activations lose all digits that a variance is made of.
        x = _wide(x)
        each, axes = x[0, 0].numel(), [0, *range(2, x.ndim)]
        weight_B = _counted.get()
        if weight_B is None:
            on_B = torch.ones(len(x), dtype=torch.bool, device=x.device)
        else:
            assert len(weight_B) == len(x), f"counted({len(weight_B)} weights) around a batch norm of {len(x)} samples"
            on_B = weight_B > 0
        on = on_B.view(-1, *[1] * (x.ndim - 1))
        # Padding may hold anything, even NaN, which a weight of 0 would not silence.
        known = torch.where(on, x, 0.0)
        count_and_sum = global_sum(torch.cat([(on_B.sum() * each).to(x.dtype)[None], known.sum(axes)]))
        count = count_and_sum[0].detach()
        if float(count) < 2:
            raise ValueError(
                f"batch norm over {int(count)} values a channel: nothing varies; give a larger global_batch, or samples that have it"
            )
        mean_C = count_and_sum[1:] / count
        # Deviations from the mean of all ranks, hence the second sum: E[x^2] - E[x]^2 cancels.
        off = torch.where(on, x - mean_C.view(1, -1, *[1] * (x.ndim - 2)), 0.0)
        return mean_C, global_sum(off.square().sum(axes)) / count, count

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, var_C: Tensor, count: Tensor) -> None:
        """Moves the running numbers, equally on all ranks; a batch that is not finite is skipped by the trainer, and so here."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        if not bool(torch.isfinite(mean_C).all() and torch.isfinite(var_C).all()):
            return
        self.num_batches_tracked += 1
        rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), rate)
        self.running_var.lerp_((var_C * (count / (count - 1))).to(self.running_var.dtype), rate)


class GlobalBatchNorm1d(_GlobalBatchNorm, nn.BatchNorm1d):
    """Of [B, C] or [B, C, L]."""


class GlobalBatchNorm2d(_GlobalBatchNorm, nn.BatchNorm2d):
    """Of [B, C, H, W]."""


class GlobalBatchNormAct2d(GlobalBatchNorm2d):
    """timm's BatchNormAct2d, which drops and activates what it has normalised."""

    def __init__(self, *args: Any, drop: nn.Module, act: nn.Module):
        super().__init__(*args)
        self.drop, self.act = drop, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


_OURS: dict[type[nn.Module], type[_GlobalBatchNorm]] = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
}


def globalised(module: nn.Module) -> nn.Module:
    """`module` with every plain batch norm in it replaced by the global one that has its weights and buffers.

    Raises:
        MethodError: a kind of batch norm that has no global one: left as it is, it would take padding and single ranks for the batch.
    """
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, _GlobalBatchNorm):
        same = (module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
        made: _GlobalBatchNorm
        if type(module) in _OURS:
            made = _OURS[type(module)](*same)
        elif _is_timms(module):
            given: Any = module
            made = GlobalBatchNormAct2d(*same, drop=given.drop, act=given.act)
        else:
            kind = type(module).__name__
            raise MethodError(
                [f"{kind}: a batch norm without a global form in models/layers/batch_norm.py; add it there"]
            )
        made.load_state_dict(module.state_dict())
        return made.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, globalised(child))
    return module


def _is_timms(module: nn.Module) -> bool:
    """Whether it is timm's batch norm with an activation; timm is loaded if it is."""
    timm_layers = sys.modules.get("timm.layers")
    return timm_layers is not None and type(module) is timm_layers.BatchNormAct2d


def holds_batch_norm(module: nn.Module) -> bool:
    """Whether a trained part normalises over samples, so that accumulating gradients would change what is computed."""
    return any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) and any(p.requires_grad for p in m.parameters())
        for m in module.modules()
    )

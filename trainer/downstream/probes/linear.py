"""Linear probes on cached features: a whole grid of learning rates and weight decays fitted in one pass.

The probes of a grid differ in nothing but their optimiser, so a mini-batch is read and standardised once and all of them are
one matrix product [N, D] x [D, G K]; their gradients are another one. Every probe starts at zero weights (the problem is
convex: there is no luck of a start) and at the biases of the best model without features, follows a cosine to zero, and is
judged on the validation split after every epoch; the best (grid point, epoch) is kept. The seed is that of the order of samples.

Shape letters: N samples, D width of the features, G grid points, K outputs of a probe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.downstream.probes.given import CHUNK, Score, check_features, checked, evaluated
from trainer.downstream.probes.linear_losses import Targets, losses, prepare, scores
from trainer.engine.choice import Direction, Evaluation, better, chosen
from trainer.errors import UserError


class GridPoint(NamedTuple):
    lr: float
    weight_decay: float = 0.0


def make_grid(lrs: Sequence[float], weight_decays: Sequence[float] = (0.0,)) -> tuple[GridPoint, ...]:
    """All pairs of learning rate and weight decay."""
    return tuple(GridPoint(lr, decay) for lr in lrs for decay in weight_decays)


GRID = make_grid((1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (0.0, 0.01, 0.1))


@dataclass(frozen=True)
class LinearFit:
    """The chosen probe.

    weight, bias   float32 [K, D] and [K], on standardised features
    mean, std      float32 [D], of the training features
    lr, weight_decay, epoch, val   where it was chosen (epochs count from 1) and its value on the validation split; lr and epoch are
                   None where the probe was brought to its optimum
    grid_values    {"lr", "weight_decay", "val", "val_loss", "epoch"} of every grid point at its best epoch; "val" is None where the
                   point diverged or its metric has no value
    val_loss       the loss that broke ties on the validation split, where one was asked for
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    lr: float | None
    weight_decay: float
    epoch: int | None
    val: float
    grid_values: list[dict[str, Any]]
    targets: Targets = field(repr=False)
    val_loss: float | None = None

    def predict(self, x: np.ndarray | Tensor) -> np.ndarray:
        """Scores of features [N, D], in the convention of `Predictions` for the probe's kind."""
        x_ND = check_features(x, "features", self.weight.shape[1])
        mean, std, weight, bias = (torch.from_numpy(a).to(x_ND.device) for a in (self.mean, self.std, self.weight, self.bias))  # fmt: skip
        parts = [F.linear((c.float() - mean).mul_(1 / std), weight, bias) for c in x_ND.split(CHUNK)]
        return scores(self.targets, torch.cat(parts).cpu())


def fit_linear(
    kind: str,
    x_train: np.ndarray | Tensor,
    y_train: np.ndarray,
    x_val: np.ndarray | Tensor,
    y_val: np.ndarray,
    *,
    score: Score,
    loss: Score | None = None,
    higher_is_better: bool = True,
    grid: Sequence[GridPoint] = GRID,
    epochs: int = 20,
    batch: int = 1024,
    seed: int = 0,
    classes: int | None = None,
    class_weights: Literal["balanced"] | None = None,
    optimiser: Literal["adam", "adamw", "sgd"] = "adam",
) -> LinearFit:
    """Fits a probe for every grid point on the training split and returns the best one on the validation split.

    Args:
        x_train, x_val: [N, D], float32 or float16; computed in float32 on the device they lie on.
        y_train, y_val: targets as in `Predictions`.
        score: (scores, targets) of the validation split -> the metric that chooses; NaN means it has no value.
        loss: the same -> the loss that breaks ties of `score`; of equal losses the later epoch is taken.
        batch: samples in a mini-batch; survival: also its risk set, so give all samples where they fit.
        classes: number of classes or grades, where the training split may lack the last one.
        optimiser: "adam" and "sgd" (momentum 0.9) take weight_decay / 2 x |weight|^2 into the loss, whose optimum is scikit-learn's
            at C = 1 / (N weight_decay); "adamw" decouples it.

    Raises:
        UserError: features or targets that cannot be fitted; no grid point with a value on the validation split.
    """
    _check_grid(grid, epochs, batch)
    xt_ND, xv_ND, y, classes = checked(kind, x_train, y_train, x_val, y_val, classes)
    targets = prepare(kind, y, classes, class_weights)
    probes = _Probes(xt_ND, targets, grid, optimiser)
    best = _Best(len(grid), higher_is_better)
    steps = epochs * -(-len(xt_ND) // batch)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        probes.train(torch.randperm(len(xt_ND), generator=order).split(batch), steps)
        for g, logits_NK in enumerate(probes.logits(xv_ND).unbind(1)):
            if not logits_NK.isfinite().all():
                continue
            best.offer(g, epoch, evaluated(scores(targets, logits_NK), y_val, score, loss), probes)
    return best.fit(grid, probes)


# ----------------------------------------------------------------------------------------------------------------- checks


def _check_grid(grid: Sequence[GridPoint], epochs: int, batch: int) -> None:
    problems = [f"{n}={v}: give at least 1" for n, v in (("epochs", epochs), ("batch", batch)) if v < 1]
    if not grid:
        problems.append("the grid is empty: give at least one learning rate")
    problems += [
        f"grid point lr={p.lr}, weight_decay={p.weight_decay}: lr must be above 0 and weight_decay not below, both finite"
        for p in grid
        if not (0 < p.lr < math.inf and 0 <= p.weight_decay < math.inf)
    ]
    if problems:
        raise UserError(problems)


def moments(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every column, float32 [D]; summed in float64, in two passes.

    A column that varies by no more than float32 can tell from its mean gets 1 for its deviation: dividing by less would make
    a feature of rounding errors.
    """
    N = len(x_ND)
    mean_D = torch.stack([c.sum(0, dtype=torch.float64) for c in x_ND.split(CHUNK)]).sum(0) / N
    std_D = (torch.stack([(c.double() - mean_D).square().sum(0) for c in x_ND.split(CHUNK)]).sum(0) / N).sqrt()
    constant_D = std_D <= 1e-6 * mean_D.abs()
    return mean_D.float(), torch.where(constant_D, 1.0, std_D).float()


# ----------------------------------------------------------------------------------------------------------------- fitting


class _Probes:
    """The probes of a grid: weight [G, K, D] and bias [G, K], one optimiser group for each row of either."""

    def __init__(self, x_ND: Tensor, targets: Targets, grid: Sequence[GridPoint], optimiser: str):
        device, G, K, D = x_ND.device, len(grid), targets.outputs, x_ND.shape[1]
        self.x_ND, self.kind, self.y, self.y_weight = (
            x_ND,
            targets.kind,
            targets.y.to(device),
            targets.weight.to(device),
        )
        self.mean, self.std = moments(x_ND)
        self.targets, self.lrs, self.step = targets, [p.lr for p in grid], 0
        self.weight = torch.zeros(G, K, D, device=device, requires_grad=True)
        self.bias = targets.prior.to(device).repeat(G, 1).requires_grad_()
        groups = [
            {"params": [row], "lr": p.lr, "weight_decay": decay}
            for g, p in enumerate(grid)
            for row, decay in ((_row(self.weight, g), p.weight_decay), (_row(self.bias, g), 0.0))
        ]
        make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimiser]
        options = {"momentum": 0.9} if optimiser == "sgd" else {}
        self.optimiser = make(groups, lr=1.0, fused=True, **options)

    def train(self, batches: Sequence[Tensor], steps: int) -> None:
        """One epoch; `steps` is the length of the whole fit."""
        for index_N in batches:
            # A cosine that ends just above zero at the last step.
            factor = 0.5 * (1 + math.cos(math.pi * self.step / steps))
            for i, group in enumerate(self.optimiser.param_groups):
                group["lr"] = factor * self.lrs[i // 2]
            index_N = index_N.to(self.x_ND.device)
            x_ND = self.x_ND.index_select(0, index_N).float().sub_(self.mean)  # in place: the rows picked are a copy
            logits_NGK = self._logits(x_ND)
            # Points do not share a weight: the gradient of the sum is each point's own.
            losses(self.kind, logits_NGK, self.y[index_N], self.y_weight[index_N]).sum().backward()
            self.optimiser.step()
            for t in (self.weight, self.bias):
                assert t.grad is not None
                t.grad.zero_()
            self.step += 1

    def _logits(self, centred_ND: Tensor) -> Tensor:
        """[N, G, K] of centred features, which are divided in place."""
        G, K, D = self.weight.shape
        x_ND = centred_ND.mul_(1 / self.std)
        return F.linear(x_ND, self.weight.view(G * K, D), self.bias.view(G * K)).view(len(x_ND), G, K)

    @torch.no_grad()
    def logits(self, x_ND: Tensor) -> Tensor:
        """[N, G, K] of other features, on the CPU."""
        x_ND = x_ND.to(self.x_ND.device)
        return torch.cat([self._logits(c.float() - self.mean).cpu() for c in x_ND.split(CHUNK)])


def _row(whole: Tensor, g: int) -> Tensor:
    """Row g of a parameter as a parameter of its own that shares memory with it, gradient included."""
    if whole.grad is None:
        whole.grad = torch.zeros_like(whole)
    row = whole.detach()[g].requires_grad_()
    row.grad = whole.grad[g]
    return row


class _Kept(NamedTuple):
    look: Evaluation
    epoch: int
    weight_KD: np.ndarray
    bias_K: np.ndarray


class _Best:
    """The best epoch of every grid point, weights included (trainer/engine/choice.py)."""

    def __init__(self, points: int, higher_is_better: bool):
        self.direction: Direction = "max" if higher_is_better else "min"
        self.kept: list[_Kept | None] = [None] * points

    def offer(self, g: int, epoch: int, look: Evaluation, probes: _Probes) -> None:
        kept = self.kept[g]
        if better(look, kept.look if kept else None, self.direction):
            weight, bias = (t.detach()[g].cpu().numpy().copy() for t in (probes.weight, probes.bias))
            self.kept[g] = _Kept(look, epoch, weight, bias)

    def fit(self, grid: Sequence[GridPoint], probes: _Probes) -> LinearFit:
        at = chosen([k.look if k else Evaluation(math.nan) for k in self.kept], self.direction)
        best = None if at is None else self.kept[at]
        if at is None or best is None:
            raise UserError(
                "no learning rate of the grid has a value on the validation split: all diverged (give smaller ones), or the "
                "metric has none (give a validation split with both classes, or with an event)"
            )
        rows = [
            {
                "lr": p.lr, "weight_decay": p.weight_decay, "val": k and k.look.value, "val_loss": k and k.look.loss,
                "epoch": k and k.epoch,
            }
            for p, k in zip(grid, self.kept, strict=True)
        ]  # fmt: skip
        mean, std = probes.mean.cpu().numpy(), probes.std.cpu().numpy()
        point = grid[at]
        return LinearFit(
            best.weight_KD, best.bias_K, mean, std, point.lr, point.weight_decay, best.epoch, best.look.value, rows, probes.targets,
            best.look.loss,
        )  # fmt: skip

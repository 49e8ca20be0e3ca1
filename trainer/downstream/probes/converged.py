"""Linear probes brought to their optimum, where samples are few: what comes out is a property of features and labels, not of a length.

Every weight decay is minimised by L-BFGS in float64 until its gradient is nought (Liu and Nocedal, Math. Programming 45, 1989), from
the strongest to the weakest, each from the one before. An L2 penalty keeps the weights in the span of the samples, so that the
problem is solved in at most as many directions as there are samples. The optimum is scikit-learn's LogisticRegression at
C = 1 / (N weight_decay), and likewise for the other kinds; nothing is drawn at random.

Shape letters: N samples, D width of the features, R directions that the samples span, K outputs of a probe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.downstream.probes.given import Score, checked, evaluated
from trainer.downstream.probes.linear import LinearFit, moments
from trainer.downstream.probes.linear_losses import Targets, losses, prepare
from trainer.engine.choice import Evaluation, chosen
from trainer.errors import UserError

DECAYS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
MOST = 5_000  # samples up to which it is what `auto` means: seconds to a minute
STEPS, LEAST = 5_000, 1e-5  # of L-BFGS; the largest entry of a gradient that counts as nought


class _Solved(NamedTuple):
    weight_KR: Tensor
    bias_K: Tensor
    gradient: float


def fit_converged(
    kind: str,
    x_train: np.ndarray | Tensor,
    y_train: np.ndarray,
    x_val: np.ndarray | Tensor,
    y_val: np.ndarray,
    *,
    score: Score,
    loss: Score | None = None,
    higher_is_better: bool = True,
    decays: Sequence[float] = DECAYS,
    classes: int | None = None,
    class_weights: Literal["balanced"] | None = None,
) -> LinearFit:
    """The optimum of every weight decay on the training split, and of these the best one on the validation split.

    Args: as of `fit_linear`.
        loss: of the validation split, which breaks ties of `score`; of equal ones the stronger decay is taken.

    Raises:
        UserError: as `fit_linear`; a decay of 0, which has no optimum where a plane parts the classes; none that converges.
    """
    if not decays or any(not 0 < d < math.inf for d in decays):
        raise UserError(
            f"protocol.weight_decays={list(decays)}: a probe that is brought to its optimum needs values above 0; give such, or take "
            "protocol.solver=epochs"
        )
    xt_ND, xv_ND, y, classes = checked(kind, x_train, y_train, x_val, y_val, classes)
    targets = prepare(kind, y, classes, class_weights)
    mean_D, std_D = (t.cpu() for t in moments(xt_ND))
    z_NR, back_RD = _directions((xt_ND.cpu().double() - mean_D) / std_D)
    fits: list[LinearFit] = []
    rows: list[dict[str, Any]] = []
    solved: _Solved | None = None
    for decay in sorted(set(decays), reverse=True):
        solved = _solve(targets, z_NR, decay, solved)
        weight_KD, bias_K = (t.numpy().astype(np.float32) for t in (solved.weight_KR @ back_RD, solved.bias_K))
        fit = LinearFit(weight_KD, bias_K, mean_D.numpy(), std_D.numpy(), None, decay, None, math.nan, rows, targets)
        solid = solved.gradient <= LEAST
        look = evaluated(fit.predict(xv_ND), y_val, score, loss) if solid else Evaluation(math.nan)
        fits.append(replace(fit, val=look.value, val_loss=look.loss))
        known = None if math.isnan(look.value) else look.value
        rows.append({"weight_decay": decay, "val": known, "val_loss": look.loss, "gradient": solved.gradient})
    at = chosen([Evaluation(f.val, f.val_loss) for f in fits], "max" if higher_is_better else "min")
    if at is None:
        raise UserError(_why_none(rows))
    return fits[at]


def _why_none(rows: Sequence[dict[str, Any]]) -> str:
    if all(r["gradient"] > LEAST for r in rows):
        return "no weight decay led to an optimum (protocol.weight_decays): give larger ones"
    return "the metric has no value on the validation split: give one with both classes, or with an event"


def _directions(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised samples in the directions that they span: [N, R], and the directions [R, D]."""
    if x_ND.shape[1] <= len(x_ND):
        return x_ND, torch.eye(x_ND.shape[1], dtype=torch.float64)
    _, spread_R, directions_RD = torch.linalg.svd(x_ND, full_matrices=False)
    kept = spread_R > 1e-10 * spread_R[0]
    return x_ND @ directions_RD[kept].T, directions_RD[kept]


def _solve(targets: Targets, z_NR: Tensor, decay: float, start: _Solved | None) -> _Solved:
    """The minimum of the mean loss + decay / 2 |weight|^2; the bias is free."""
    from scipy.optimize import minimize

    K, R = targets.outputs, z_NR.shape[1]
    y = targets.y if targets.kind == "multiclass" else targets.y.double()
    weight = targets.weight.double()

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(flat).requires_grad_()
        weight_KR, bias_K = at[: K * R].view(K, R), at[K * R :]
        logits_N1K = (z_NR @ weight_KR.T + bias_K)[:, None]
        total = losses(targets.kind, logits_N1K, y, weight).sum() + decay / 2 * weight_KR.square().sum()
        total.backward()
        assert at.grad is not None
        return float(total.detach()), at.grad.numpy()

    first = torch.cat([torch.zeros(K * R, dtype=torch.float64), targets.prior.double()])
    if start is not None:
        first = torch.cat([start.weight_KR.reshape(-1), start.bias_K])
    options = {"maxiter": STEPS, "maxfun": 2 * STEPS, "maxcor": 20, "gtol": 1e-9, "ftol": 1e-15}
    found = minimize(value_and_gradient, first.numpy(), jac=True, method="L-BFGS-B", options=options)
    flat = torch.from_numpy(found.x)
    gradient = float(np.abs(value_and_gradient(found.x)[1]).max())
    return _Solved(flat[: K * R].view(K, R), flat[K * R :], gradient)

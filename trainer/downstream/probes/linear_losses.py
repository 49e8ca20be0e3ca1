"""What a probe is fitted to: targets of every kind checked and prepared once, losses of many probes at a time.

All probes of a grid see the same mini-batch, so a loss is computed on logits [N, G, K] and returned for each grid point: the
points stay independent, also where one of them diverges. Several labels or targets are problems of their own: each is a mean
over its known samples, and these are summed, so that a weight decay means the same for one label and for fourteen.

    binary, multilabel, ordinal   logistic loss; unknown labels (NaN) left out. A grade is the multi-hot "at least grade 1, 2, ...":
                                  Cheng et al., "A neural network approach to ordinal regression", IJCNN 2008
    multiclass                    cross-entropy
    regression                    squared error of standardised targets; unknown values (NaN) left out
    survival                      Cox's partial likelihood with Breslow's treatment of ties (Breslow, Biometrics 1974); the risk set
                                  is the mini-batch, so a batch of all cases is the exact one

Shape letters: N samples, G grid points, K outputs of a probe, C classes or grades.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.errors import UserError

ProbeKind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "survival"]
KINDS: tuple[str, ...] = get_args(ProbeKind)
GRADED = ("binary", "multiclass", "ordinal")


@dataclass(frozen=True)
class Targets:
    """Targets of the training samples as the losses want them.

    y         float32 [N, K], 0 where unknown; int64 [N] codes for multiclass; float32 [N, 2] (time, event) for survival
    weight    float32 [N, K], 0 where unknown; [N] for multiclass; all ones [N] for survival
    outputs   K
    prior     float32 [K]: the biases of the best model that sees no features
    scale     float32 [2, K] (mean, sd) of regression targets, so that scores are in the label's own units
    flat      whether a regression target was given as [N]
    """

    kind: str
    y: Tensor
    weight: Tensor
    outputs: int
    prior: Tensor
    scale: Tensor
    flat: bool


# ----------------------------------------------------------------------------------------------------------------- checks


def check_targets(
    kind: str, y_train: np.ndarray, y_val: np.ndarray, samples: tuple[int, int], classes: int | None = None
) -> tuple[np.ndarray, int | None]:
    """Training targets, checked together with those of the validation split, and the number of classes or grades.

    Raises:
        UserError: see `check_target`.
    """
    y = check_target(kind, y_train, samples[0], "training targets", classes)
    other = check_target(kind, y_val, samples[1], "validation targets", classes)
    if kind in ("multiclass", "ordinal"):
        classes = classes or int(max(y.max(), other.max())) + 1
    if kind in ("multilabel", "regression") and y.shape[1:] != other.shape[1:]:
        raise UserError(
            f"targets are {list(y.shape)} for training, {list(other.shape)} for validation; give the same labels"
        )
    return y, classes


def check_target(kind: str, y: np.ndarray, samples: int, name: str, classes: int | None = None) -> np.ndarray:
    """A target array as float64 (int64 codes where a sample has one of several classes), in the shape its kind asks for.

    Args:
        classes: number of classes or grades where the task knows it.

    Raises:
        UserError: unknown kind, wrong shape, values that the kind does not have, unknown values where none can be left out.
    """
    if kind not in KINDS:
        raise UserError(f"no probe for kind '{kind}'; there are probes for {', '.join(KINDS)}")
    y = np.asarray(y)
    dims = {"multilabel": (2,), "survival": (2,), "regression": (1, 2)}.get(kind, (1,))
    if y.ndim not in dims or len(y) != samples or (kind == "survival" and y.shape[1] != 2):
        wanted = {"multilabel": "[N, K]", "survival": "[N, 2]", "regression": "[N] or [N, K]"}.get(kind, "[N]")
        raise UserError(f"{name}: {kind} targets are {wanted} for {samples} samples, these are {list(y.shape)}")
    y = y.astype(np.float64)
    unknown = np.isnan(y)
    if kind in ("multilabel", "regression"):
        if unknown.all():
            raise UserError(f"{name}: no known value; take another label")
    elif unknown.any():
        raise UserError(f"{name}: {int(unknown.sum())} unknown {kind} targets (NaN); leave these samples out")
    return _check_values(kind, y, name, classes)


def _check_values(kind: str, y: np.ndarray, name: str, classes: int | None) -> np.ndarray:
    known = y[~np.isnan(y)]
    if not np.isfinite(known).all():
        raise UserError(f"{name}: infinite {kind} targets; mend the labels")
    if kind == "regression":
        return y
    if kind == "survival":
        if (y[:, 0] < 0).any() or not np.isin(y[:, 1], (0, 1)).all():
            raise UserError(f"{name}: survival targets are (time >= 0, event 0 or 1); mend the labels")
        return y
    most = 2 if kind in ("binary", "multilabel") else classes
    odd = np.unique(known[(known < 0) | (known != np.floor(known)) | ((known >= most) if most else False)])
    if len(odd):
        wanted = f"0 to {most - 1}" if most else "0, 1, 2, ..."
        raise UserError(f"{name}: {kind} targets are {wanted}, found {odd[:5].tolist()}; mend the labels")
    return y if kind == "multilabel" else y.astype(np.int64)


def check_learnable(kind: str, y: np.ndarray) -> None:
    """Raises UserError where training targets leave nothing to learn: one class, a constant, no event."""
    remedy = "take more samples, or another label"
    if kind in GRADED and len(np.unique(y)) < 2:
        raise UserError(f"training targets: all {len(y)} samples are of class {int(y[0])}; {remedy}")
    if kind == "multilabel" and not ((y == 0).any(0) & (y == 1).any(0)).any():
        raise UserError(f"training targets: no label has both a 0 and a 1; {remedy}")
    if kind in ("multilabel", "regression") and (empty := np.flatnonzero(np.isnan(y.reshape(len(y), -1)).all(0))).size:
        raise UserError(f"training targets: no known value in column {empty.tolist()}; {remedy}")
    if kind == "regression" and (np.nanmax(y, 0) == np.nanmin(y, 0)).any():
        raise UserError(f"training targets: a column is constant; {remedy}")
    if kind == "survival" and not y[:, 1].any():
        raise UserError(f"training targets: no event among {len(y)} samples; {remedy}")


# --------------------------------------------------------------------------------------------------------------- prepared


def prepare(
    kind: str, y: np.ndarray, classes: int | None = None, class_weights: Literal["balanced"] | None = None
) -> Targets:
    """Checked training targets in the losses' form. `classes`: C where it is more than the largest code + 1.

    class_weights="balanced": every class weighs the same, N / (C N_c) a sample, for each label by itself in multilabel.

    Raises:
        UserError: class weights for a kind without classes.
    """
    if class_weights is not None and kind in ("regression", "survival"):
        raise UserError(f"class weights: {kind} has no classes; leave them out")
    flat, scale = y.ndim == 1, np.stack([np.zeros(1), np.ones(1)])
    sample_N = _balance(y) if class_weights and kind in GRADED else np.ones(len(y))
    if kind == "survival":
        return _targets(kind, y, sample_N, 1, np.zeros(1), scale, flat)
    if kind == "multiclass":
        C = classes or int(y.max()) + 1
        prior = np.log(np.bincount(y, sample_N, C) + 0.5)
        return _targets(kind, y, sample_N, C, prior - prior.mean(), scale, flat)
    if kind == "ordinal":
        C = classes or int(y.max()) + 1
        y_NK = (y[:, None] >= np.arange(1, C)).astype(np.float64)
    else:
        y_NK = y.reshape(len(y), -1).astype(np.float64)
    weight_NK = sample_N[:, None] * ~np.isnan(y_NK)
    if class_weights and kind == "multilabel":
        weight_NK = np.stack([_balance(column) for column in y_NK.T], 1)
    if kind == "regression":
        scale = np.stack([np.nanmean(y_NK, 0), np.nanstd(y_NK, 0)])
        y_NK, prior = (y_NK - scale[0]) / scale[1], np.zeros(y_NK.shape[1])
    else:
        ones = np.nansum(weight_NK * y_NK, 0)
        # Half a sample on either side keeps a label of one class finite.
        prior = np.log(ones + 0.5) - np.log(weight_NK.sum(0) - ones + 0.5)
    return _targets(kind, np.nan_to_num(y_NK), weight_NK, y_NK.shape[1], prior, scale, flat)


def _balance(y_N: np.ndarray) -> np.ndarray:
    """Weights [N] under which every class of a column weighs the same; 0 where unknown, mean 1 over the known."""
    known = ~np.isnan(y_N)
    values, code, count = np.unique(y_N[known], return_inverse=True, return_counts=True)
    weight_N = np.zeros(len(y_N))
    weight_N[known] = (known.sum() / (len(values) * count))[code]
    return weight_N


def _targets(
    kind: str, y: np.ndarray, weight: np.ndarray, outputs: int, prior: np.ndarray, scale: np.ndarray, flat: bool
) -> Targets:
    dtype = torch.int64 if kind == "multiclass" else torch.float32
    f32 = torch.float32
    as_t = torch.as_tensor
    return Targets(
        kind, as_t(y, dtype=dtype), as_t(weight, dtype=f32), outputs, as_t(prior, dtype=f32), as_t(scale, dtype=f32), flat
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- losses


def losses(kind: str, logits_NGK: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Loss of every grid point, [G]: the sum over outputs of weighted means over the known in the mini-batch; 0 where none is."""
    if kind == "survival":
        return _cox(logits_NGK[..., 0], y[:, 0], y[:, 1])
    if kind == "multiclass":
        N, G, K = logits_NGK.shape
        each_NG = F.cross_entropy(logits_NGK.reshape(N * G, K), y.repeat_interleave(G), reduction="none").view(N, G)
        return (each_NG * weight[:, None]).sum(0) / _counts(weight)
    y_NGK = y[:, None].expand_as(logits_NGK)
    if kind == "regression":
        each_NGK = (logits_NGK - y_NGK).square()
    else:
        each_NGK = F.binary_cross_entropy_with_logits(logits_NGK, y_NGK, reduction="none")
    return ((each_NGK * weight[:, None]).sum(0) / _counts(weight)).sum(1)


def _counts(weight: Tensor) -> Tensor:
    """Sum of the weights of every output; never 0."""
    return weight.sum(0).clamp_min(torch.finfo(torch.float32).tiny)


def _cox(risk_NG: Tensor, time_N: Tensor, event_N: Tensor) -> Tensor:
    """Negative partial log-likelihood of an event, [G]; at risk at a time are all who have that time or a later one."""
    order_N = time_N.argsort(descending=True, stable=True)
    risk_NG, time_N, event_N = risk_NG[order_N], time_N[order_N], event_N[order_N]
    # Descending times: the risk set of a sample ends with the last one of its own time (Breslow).
    last_N = torch.searchsorted(-time_N, -time_N, right=True) - 1
    at_risk_NG = risk_NG.logcumsumexp(0)[last_N]
    return ((at_risk_NG - risk_NG) * event_N[:, None]).sum(0) / event_N.sum().clamp_min(1)


# ----------------------------------------------------------------------------------------------------------------- scores


def scores(targets: Targets, logits_NK: Tensor) -> np.ndarray:
    """Logits of one probe as a score in the convention of `Predictions`: probabilities, label units, or log risk."""
    kind = targets.kind
    if kind == "multiclass":
        out = logits_NK.double().softmax(1)
    elif kind == "regression":
        out = logits_NK.double() * targets.scale[1] + targets.scale[0]
        out = out[:, 0] if targets.flat else out
    elif kind == "survival":
        out = logits_NK[:, 0].double()
    else:
        out = logits_NK.double().sigmoid()
        if kind == "binary":
            out = out[:, 0]
        if kind == "ordinal":
            # Every sample has at least grade 0.
            out = torch.cat([torch.ones_like(out[:, :1]), out], 1)
    return out.cpu().numpy()

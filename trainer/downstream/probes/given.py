"""What every probe is given: features and targets of two splits, checked together, and how the second judges what it says.

Shape letters: N samples, D width of the features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.downstream.probes.linear_losses import check_learnable, check_targets
from trainer.engine.choice import Evaluation
from trainer.errors import UserError

Score = Callable[[np.ndarray, np.ndarray], float]
CHUNK = 2048  # samples at a time where all of them are read: a few MB, so that they stay in the cache


class Checked(NamedTuple):
    """Features [N, D] of training and validation split, training targets in their kind's shape, number of classes or grades."""

    x_train_ND: Tensor
    x_val_ND: Tensor
    y_train: np.ndarray
    classes: int | None


def checked(
    kind: str,
    x_train: np.ndarray | Tensor,
    y_train: np.ndarray,
    x_val: np.ndarray | Tensor,
    y_val: np.ndarray,
    classes: int | None = None,
) -> Checked:
    """What a probe is fitted to and chosen on.

    Raises:
        UserError: features that are no finite [N, D] of one width, targets that do not fit them or the kind, nothing to learn.
    """
    x_train_ND = check_features(x_train, "training features")
    x_val_ND = check_features(x_val, "validation features", x_train_ND.shape[1])
    y, classes = check_targets(kind, y_train, y_val, (len(x_train_ND), len(x_val_ND)), classes)
    check_learnable(kind, y)
    return Checked(x_train_ND, x_val_ND, y, classes)


def evaluated(said: np.ndarray, y_val: np.ndarray, score: Score, loss: Score | None) -> Evaluation:
    """How the validation split judges the scores `said`; `loss` breaks ties where it is given."""
    return Evaluation(float(score(said, y_val)), None if loss is None else float(loss(said, y_val)))


def check_features(x: np.ndarray | Tensor, name: str, width: int | None = None) -> Tensor:
    """Features as a tensor [N, D], without a copy where none is needed.

    Raises:
        UserError: not [N, D], no sample, another width than wanted, or values that are no finite numbers.
    """
    x_ND = x.detach() if isinstance(x, Tensor) else torch.from_numpy(np.require(x, requirements="W"))
    if x_ND.ndim != 2 or not x_ND.numel():
        raise UserError(f"{name}: features are [N, D] with N and D at least 1, these are {list(x_ND.shape)}")
    if width is not None and x_ND.shape[1] != width:
        raise UserError(f"{name}: {x_ND.shape[1]} wide, the probe is {width} wide; take both from one encoder")
    bad = torch.cat([~c.isfinite().all(1) for c in x_ND.split(CHUNK)])
    if n := int(bad.sum()):
        first = int(bad.nonzero()[0])
        raise UserError(f"{name}: {n} samples with non-finite features, the first in row {first}; the encoder diverged")
    return x_ND

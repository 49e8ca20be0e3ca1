"""Where torchmetrics has a metric of the same convention, ours has its value: what people compare with in their own code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as c
from torchmetrics.functional import regression as r

from tests.trainer.downstream.cohorts import random_predictions
from trainer.downstream.metrics.table import METRICS, Kind, Predictions

K = 4
Peer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def grade(score_NK: torch.Tensor) -> torch.Tensor:
    return score_NK.argmax(1)


PEERS: dict[tuple[str, Kind], Peer] = {
    ("auc", "binary"): lambda s, t: c.binary_auroc(s, t.long()),
    ("auc", "multiclass"): lambda s, t: c.multiclass_auroc(s, t.long(), K, average="macro"),
    ("auc", "multilabel"): lambda s, t: c.multilabel_auroc(s, t.long(), K, average="macro"),
    ("auc_micro", "multilabel"): lambda s, t: c.multilabel_auroc(s, t.long(), K, average="micro"),
    ("average_precision", "binary"): lambda s, t: c.binary_average_precision(s, t.long()),
    ("average_precision", "multilabel"): lambda s, t: c.multilabel_average_precision(s, t.long(), K),
    ("accuracy", "binary"): lambda s, t: c.binary_accuracy(s, t.long()),
    ("accuracy", "multiclass"): lambda s, t: c.multiclass_accuracy(grade(s), t.long(), K, average="micro"),
    ("balanced_accuracy", "multiclass"): lambda s, t: c.multiclass_accuracy(grade(s), t.long(), K, average="macro"),
    ("f1_macro", "multiclass"): lambda s, t: c.multiclass_f1_score(grade(s), t.long(), K, average="macro"),
    ("kappa_quadratic", "multiclass"): lambda s, t: c.multiclass_cohen_kappa(
        grade(s), t.long(), K, weights="quadratic"
    ),
    ("mae", "regression"): lambda s, t: r.mean_absolute_error(s, t),
    ("r2", "regression"): lambda s, t: r.r2_score(s, t),
    ("pearson", "regression"): lambda s, t: r.pearson_corrcoef(s, t).mean(),
    ("spearman", "regression"): lambda s, t: r.spearman_corrcoef(s, t).mean(),
}


def tensors(p: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.ascontiguousarray(p.score)), torch.from_numpy(np.ascontiguousarray(p.target))


@pytest.mark.parametrize(("name", "kind"), PEERS)
def test_equals_torchmetrics(name: str, kind: Kind) -> None:
    for seed in range(5):
        p = random_predictions(kind, np.random.default_rng(seed), 60, K)
        peer = float(PEERS[name, kind](*tensors(p)))
        assert METRICS[name].compute(p) == pytest.approx(peer, abs=1e-6), seed

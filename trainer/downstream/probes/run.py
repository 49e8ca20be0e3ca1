"""Linear probe and k-NN: the encoder stands still, so its features are computed once and shared by seeds and fractions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.read.dataset import Dataset
from trainer.downstream.init import Init
from trainer.downstream.metrics.held_back_loss import held_back_loss
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.predict import as_predictions
from trainer.downstream.probes.converged import DECAYS, MOST, fit_converged
from trainer.downstream.probes.features import extract, identity_of
from trainer.downstream.probes.knn import fit_knn
from trainer.downstream.probes.linear import fit_linear, make_grid
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import Targets, fitted, targets_of_split
from trainer.downstream.task.schema import Task
from trainer.errors import Stopped
from trainer.runtime import Runtime, StopFlag, agree_sum

EPOCH_DECAYS = (0.0, 1e-4, 1e-2)
SAID = {
    "converged": "linear probe: each weight decay brought to its optimum on {n} labelled samples (protocol.lr, .epochs play no part)",
    "epochs": "linear probe: trained by mini-batches on {n} labelled samples (protocol.lr, protocol.epochs); the best epoch is kept",
}


@dataclass
class Probed:
    predictions: list[Predictions]
    chosen: list[dict[str, Any]]
    train: int
    pooled_ND: np.ndarray | None = None
    """Features of the test cases, of the first seed."""


def frozen_predictions(
    task: Task,
    source: Init,
    data: Dataset,
    targets: Targets,
    fields: tuple[str, ...],
    splits: dict[str, np.ndarray],
    primary: str,
    cache: Path,
    runtime: Runtime,
    stop: StopFlag,
) -> Probed:
    """Fits on the labelled training samples, chooses on the validation split, predicts the test split; once a seed.

    Raises:
        Stopped: a stop was asked for; the features of whole splits are kept.
    """
    out = Probed([], [], 0)
    features: dict[str, np.ndarray] = {}
    for seed in task.protocol.seeds:
        if not features or not source.pretrained:
            # From scratch another seed is another encoder.
            features = _features(task, source, data, fields, splits, cache, seed, runtime, stop)
        stop_if_asked(stop, runtime)
        train = labelled(task, data, targets, splits[task.data.train], seed)
        own = fitted(task, targets, train)
        if task.mode == "linear" and not out.predictions:
            runtime.say(SAID[solver(task, len(train))].format(n=len(train)))
        x_train = features[task.data.train][np.isin(splits[task.data.train], train)]
        predicted, chosen = _fit(task, data, own, train, x_train, features, splits, primary, seed)
        out.predictions.append(predicted)
        out.chosen.append({"seed": seed, **chosen})
        out.train = len(train)
        if out.pooled_ND is None:
            out.pooled_ND = features[task.data.test]
    return out


def _features(
    task: Task,
    source: Init,
    data: Dataset,
    fields: tuple[str, ...],
    splits: dict[str, np.ndarray],
    cache: Path,
    seed: int,
    runtime: Runtime,
    stop: StopFlag,
) -> dict[str, np.ndarray]:
    """By split, the features of the samples that take part, [N, D]."""
    method = source.build(seed)
    method.inputs = fields
    method.to(runtime.device)
    identity, found = identity_of(method), {}
    for split, at in splits.items():
        stop_if_asked(stop, runtime)
        whole = extract(
            method,
            data,
            split,
            runtime,
            batch=task.protocol.eval_batch,
            workers=task.data.workers,
            cache=cache,
            identity=identity,
        )
        found[split] = whole.x_ND[np.isin(data.subset(split).indices, at)]
    return found


def stop_if_asked(stop: StopFlag, runtime: Runtime) -> None:
    """Ends on all ranks if one of them was asked to."""
    if agree_sum({"stop": float(stop.asked is not None)}, runtime.device)["stop"]:
        raise Stopped("stopped; the features that are done are kept. The same command goes on from there")


def _answers(task: Task, targets: Targets, at: np.ndarray) -> np.ndarray:
    """Targets as `Predictions` has them."""
    value = targets.value_NT[at]
    if task.kind in ("multilabel", "survival") or value.shape[1] > 1:
        return value
    return value[:, 0]


def _fit(
    task: Task, data: Dataset, targets: Targets, train: np.ndarray, x_train: np.ndarray, features: dict[str, np.ndarray],
    splits: dict[str, np.ndarray], primary: str, seed: int,
) -> tuple[Predictions, dict[str, Any]]:  # fmt: skip
    metric, val, test = METRICS[primary], splits[task.data.val], splits[task.data.test]
    chosen_on, tested_on = (
        targets_of_split(task, targets, at, s) for s, at in ((task.data.val, val), (task.data.test, test))
    )
    K = len(targets.question.classes) if task.kind in ("multiclass", "ordinal") else None

    def said(values: np.ndarray) -> Predictions:
        return as_predictions(chosen_on, data, val, np.asarray(values, np.float64))

    def score(values: np.ndarray, _: np.ndarray) -> float:
        return metric.compute(said(values))

    def loss(values: np.ndarray, _: np.ndarray) -> float:
        return held_back_loss(said(values))

    x_val, x_test = features[task.data.val], features[task.data.test]
    y_train, y_val = _answers(task, targets, train), _answers(task, targets, val)
    judge: dict[str, Any] = {"score": score, "loss": loss, "higher_is_better": metric.higher_is_better, "classes": K}
    fit: Any
    if task.mode == "knn":
        fit = fit_knn(task.kind, x_train, y_train, x_val, y_val, ks=task.protocol.neighbours, **judge)
        chosen = {"k": fit.k}
    elif solver(task, len(train)) == "converged":
        fit = fit_converged(
            task.kind, x_train, y_train, x_val, y_val, decays=task.protocol.weight_decays or DECAYS,
            class_weights="balanced" if task.protocol.weight_classes else None, **judge,
        )  # fmt: skip
        chosen = {"solver": "converged", "weight_decay": fit.weight_decay}
    else:
        epochs = task.protocol.epochs or 50
        fit = fit_linear(
            task.kind, x_train, y_train, x_val, y_val, grid=make_grid(task.protocol.lr, task.protocol.weight_decays or EPOCH_DECAYS),
            epochs=epochs, batch=task.protocol.batch, seed=seed,
            class_weights="balanced" if task.protocol.weight_classes else None, **judge,
        )  # fmt: skip
        chosen = {
            "solver": "epochs",
            "lr": fit.lr,
            "weight_decay": fit.weight_decay,
            "epoch": fit.epoch,
            "epochs": epochs,
        }
    chosen |= {"val": fit.val, "val_loss": fit.val_loss, "grid": fit.grid_values}
    scores = np.asarray(fit.predict(x_test), np.float64)
    return as_predictions(tested_on, data, test, scores), chosen


def solver(task: Task, samples: int) -> str:
    """`converged` or `epochs`: what `auto` means for so many labelled training samples."""
    wanted = task.protocol.solver
    if wanted != "auto":
        return wanted
    # A decay of 0 has no optimum where a plane parts the classes; who asks for it asks for epochs.
    return "converged" if samples <= MOST and 0 not in (task.protocol.weight_decays or DECAYS) else "epochs"

"""Linear probe and k-NN: the encoder stands still, so its features are computed once and shared by seeds and fractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from shards.read.dataset import Dataset
from trainer.downstream.init import Init
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.recalibrated import Recalibration, recalibrated
from trainer.downstream.metrics.table import METRICS, Metric
from trainer.downstream.metrics.validation_loss import validation_loss
from trainer.downstream.predict import as_predictions
from trainer.downstream.probes.converged import DECAYS, MOST, fit_converged
from trainer.downstream.probes.features import extract, identity_of
from trainer.downstream.probes.knn import fit_knn
from trainer.downstream.probes.linear import fit_linear, make_grid
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import Targets, fitted, targets_of_split
from trainer.downstream.task.rules.modes import recalibrates
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
    fits: list[Recalibration] = field(default_factory=list)
    """By seed, what the validation split says of how scores are to be read; none where nothing asks for it."""


@dataclass(frozen=True)
class Frozen:
    """What probes are fitted on: a task, and an encoder's features of the samples of its splits.

    splits   {split: the samples that take part}
    primary  the metric that chooses
    cache    folder of the features
    """

    task: Task
    source: Init
    data: Dataset
    targets: Targets
    fields: tuple[str, ...]
    splits: dict[str, np.ndarray]
    primary: str
    cache: Path


class Probe(Protocol):
    """A fitted probe of any kind."""

    @property
    def val(self) -> float: ...

    @property
    def val_loss(self) -> float | None: ...

    @property
    def grid_values(self) -> list[dict[str, Any]]: ...

    def predict(self, x: np.ndarray) -> np.ndarray: ...


def frozen_predictions(about: Frozen, runtime: Runtime, stop: StopFlag) -> Probed:
    """Fits on the labelled training samples, chooses on the validation split, predicts the test split; once a seed.

    Raises:
        Stopped: a stop was asked for; the features of whole splits are kept.
    """
    out, task = Probed([], [], 0), about.task
    features: dict[str, np.ndarray] = {}
    for seed in task.protocol.seeds:
        if not features or not about.source.pretrained:
            # From scratch another seed is another encoder.
            features = _features(about, seed, runtime, stop)
        stop_if_asked(stop, runtime)
        train = labelled(task, about.data, about.targets, about.splits[task.data.train], seed)
        if task.mode == "linear" and not out.predictions:
            runtime.say(SAID[solver(task, len(train))].format(n=len(train)))
        predicted, chosen, fit = _fit(about, train, features, seed)
        out.fits += [fit] if fit else []
        out.predictions.append(predicted)
        out.chosen.append({"seed": seed, **chosen})
        out.train = len(train)
        if out.pooled_ND is None:
            out.pooled_ND = features[task.data.test]
    return out


def _features(about: Frozen, seed: int, runtime: Runtime, stop: StopFlag) -> dict[str, np.ndarray]:
    """By split, the features of the samples that take part, [N, D]."""
    task, data = about.task, about.data
    method = about.source.build(seed)
    method.inputs = about.fields
    method.to(runtime.device)
    identity, found = identity_of(method), {}
    for split, at in about.splits.items():
        stop_if_asked(stop, runtime)
        whole = extract(
            method,
            data,
            split,
            runtime,
            batch=task.protocol.eval_batch,
            workers=task.data.workers,
            cache=about.cache,
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
    about: Frozen, train: np.ndarray, features: dict[str, np.ndarray], seed: int
) -> tuple[Predictions, dict[str, Any], Recalibration | None]:
    """Predictions of the test split by a probe fitted on the samples `train`, how it was chosen, and how they are to be read."""
    task, splits = about.task, about.splits
    own, val, test = fitted(task, about.targets, train), splits[task.data.val], splits[task.data.test]
    chosen_on, tested_on = (
        targets_of_split(task, own, at, s) for s, at in ((task.data.val, val), (task.data.test, test))
    )
    given = (
        features[task.data.train][np.isin(splits[task.data.train], train)], _answers(task, own, train),
        features[task.data.val], _answers(task, own, val),
    )  # fmt: skip
    K = len(own.question.classes) if task.kind in ("multiclass", "ordinal") else None
    judge = _judge(METRICS[about.primary], lambda values: as_predictions(chosen_on, about.data, val, values), K)
    fit, chosen = _probe(task, given, judge, seed)
    chosen |= {"val": fit.val, "val_loss": fit.val_loss, "grid": fit.grid_values}
    said_val, scores = (np.asarray(fit.predict(features[s]), np.float64) for s in (task.data.val, task.data.test))
    reading = recalibrated(as_predictions(chosen_on, about.data, val, said_val)) if recalibrates(task) else None
    return as_predictions(tested_on, about.data, test, scores), chosen, reading


def _judge(metric: Metric, said: Callable[[np.ndarray], Predictions], classes: int | None) -> dict[str, Any]:
    """What every kind of probe is chosen by; `said` makes predictions of scores of the validation split."""

    def score(values: np.ndarray, _: np.ndarray) -> float:
        return metric.compute(said(np.asarray(values, np.float64)))

    def loss(values: np.ndarray, _: np.ndarray) -> float:
        return validation_loss(said(np.asarray(values, np.float64)))

    return {"score": score, "loss": loss, "higher_is_better": metric.higher_is_better, "classes": classes}


def _probe(
    task: Task, given: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], judge: dict[str, Any], seed: int
) -> tuple[Probe, dict[str, Any]]:
    """The probe that the task asks for, and what was chosen in it.

    given: features and answers of the training samples, and of the validation split.
    """
    p = task.protocol
    if task.mode == "knn":
        knn = fit_knn(task.kind, *given, ks=p.neighbours, **judge)
        return knn, {"k": knn.k}
    balanced: Literal["balanced"] | None = "balanced" if p.weight_classes else None
    if solver(task, len(given[0])) == "converged":
        fit = fit_converged(task.kind, *given, decays=p.weight_decays or DECAYS, class_weights=balanced, **judge)
        return fit, {"solver": "converged", "weight_decay": fit.weight_decay}
    epochs, grid = p.epochs or 50, make_grid(p.lr, p.weight_decays or EPOCH_DECAYS)
    fit = fit_linear(
        task.kind, *given, grid=grid, epochs=epochs, batch=p.batch, seed=seed, class_weights=balanced, **judge
    )
    chosen = {"lr": fit.lr, "weight_decay": fit.weight_decay, "epoch": fit.epoch, "epochs": epochs}
    return fit, {"solver": "epochs", **chosen}


def solver(task: Task, samples: int) -> str:
    """`converged` or `epochs`: what `auto` means for so many labelled training samples."""
    wanted = task.protocol.solver
    if wanted != "auto":
        return wanted
    # A decay of 0 has no optimum where a plane parts the classes; who asks for it asks for epochs.
    return "converged" if samples <= MOST and 0 not in (task.protocol.weight_decays or DECAYS) else "epochs"

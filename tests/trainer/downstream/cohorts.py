"""Random and degenerate test sets of every kind, for the tests of metrics and statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.downstream.metrics.table import Kind, Predictions


def names(n: int, per_patient: int = 1) -> tuple[list[str], list[str]]:
    """Keys of n cases, and their patients."""
    return [f"case-{i:05d}" for i in range(n)], [f"patient-{i // per_patient:05d}" for i in range(n)]


def make(
    kind: Kind, target: object, score: object, classes: Sequence[str] = (), per_patient: int = 1, scale: object = None
) -> Predictions:
    """Predictions of consecutively named cases."""
    target, score = np.asarray(target, dtype=float), np.asarray(score, dtype=float)
    if kind in ("multiclass", "ordinal", "multilabel") and not classes:
        classes = [str(k) for k in range(score.shape[1])]
    keys, patients = names(len(target), per_patient)
    soft_N3 = None
    if kind == "segmentation":  # as if the probabilities were a little below one
        soft_N3 = np.stack([0.8 * score[:, 0], 0.9 * score[:, 1], np.nan_to_num(target)], 1)
    horizons = survival_NH = None
    if kind == "survival":
        horizons = (3.0, 5.0, 8.0, 14.0)
        survival_NH = np.exp(-np.exp(np.clip(score, -5, 2))[:, None] * np.array(horizons) / 20)
    return Predictions(
        kind,
        keys,
        patients,
        target,
        score,
        tuple(classes),
        scale,
        soft_N3,
        horizons,
        survival_NH,  # type: ignore[arg-type]
    )


def coarse(x: np.ndarray) -> np.ndarray:
    """Rounded, so that there are ties."""
    return np.round(x, 1)


def random_predictions(
    kind: Kind, rng: np.random.Generator, n: int = 60, k: int = 4, unknown: float = 0.0
) -> Predictions:
    """A random test set of two cases a patient, with ties; a share of `unknown` targets."""
    if kind == "binary":
        target, score = rng.integers(0, 2, n).astype(float), coarse(rng.random(n))
    elif kind == "multiclass":
        target, score = rng.integers(0, k, n).astype(float), rng.dirichlet(np.ones(k), n)
    elif kind == "multilabel":
        target, score = rng.integers(0, 2, (n, k)).astype(float), coarse(rng.random((n, k)))
    elif kind == "ordinal":
        target, score = rng.integers(0, k, n).astype(float), coarse(-np.sort(-rng.random((n, k)), axis=1))
    elif kind == "regression":
        target = coarse(rng.normal(50, 10, (n, k)) / 10)
        score = coarse(target + rng.normal(0, 1, (n, k)))
    elif kind == "survival":
        target = np.stack([np.ceil(rng.exponential(10, n)), rng.integers(0, 2, n)], 1).astype(float)
        score = coarse(rng.normal(0, 1, n))
    elif kind == "retrieval":
        target, score = rng.integers(1, 4, n).astype(float), rng.integers(2, 40, (n, 2)) / 2
    else:
        target = rng.integers(0, 40, n) * rng.integers(0, 2, n) * 1.0
        predicted = rng.integers(0, 40, n) * rng.integers(0, 2, n)
        score = np.stack([np.minimum(target, predicted) // 2, predicted], 1)
    target = np.where(rng.random(target.shape) < unknown, np.nan, target)
    scale = np.arange(1.0, k + 1) if kind == "regression" else None
    return make(kind, target, score, per_patient=2, scale=scale)


def one_value(kind: Kind, n: int = 6) -> Predictions:
    """A test set in which every case has the same target and the same score: one class, one grade, one time, all empty."""
    flat = np.tile(np.eye(3)[:1], (n, 1))
    target, score = {
        "binary": (np.ones(n), np.full(n, 0.7)),
        "multiclass": (np.zeros(n), flat),
        "multilabel": (np.ones((n, 2)), np.full((n, 2), 0.7)),
        "ordinal": (np.zeros(n), flat),
        "regression": (np.full(n, 3.3), np.full(n, 3.1)),
        "survival": (np.tile([5.0, 1.0], (n, 1)), np.zeros(n)),
        "segmentation": (np.zeros(n), np.zeros((n, 2))),
        "retrieval": (np.ones(n), np.ones((n, 2))),
    }[kind]
    return make(kind, target, score, scale=[2.0] if kind == "regression" else None)

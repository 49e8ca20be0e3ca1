"""Predictions of the same test cases in one order, after the check that they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.errors import UserError


def aligned(predictions: Sequence[Predictions]) -> list[Predictions]:
    """All predictions in the order of their keys, after the check that they speak of the same cases."""
    assert predictions, "at least one seed"
    first = predictions[0]
    problems = [f"case {k} is predicted twice; evaluate every case once" for p in predictions for k in _twice(p)]
    for p in predictions[1:] if not problems else ():
        problems += _differences(first, p)
    if problems:
        raise UserError(sorted(set(problems)))
    return [_by_key(p) for p in predictions]


def alike(p: Predictions, q: Predictions) -> bool:
    """Whether predictions in the order of their keys speak of the same cases, in all that `aligned` asks."""
    same = p.kind == q.kind and p.classes == q.classes
    arrays = ((p.keys_N, q.keys_N), (p.patients_N, q.patients_N), (p.scale_K, q.scale_K), (p.horizons_H, q.horizons_H))
    same = same and all(np.array_equal(x, y) if x is not None and y is not None else x is y for x, y in arrays)
    return same and np.array_equal(p.target, q.target, equal_nan=True)


def _by_key(p: Predictions) -> Predictions:
    order_N = np.argsort(p.keys_N, kind="stable")
    return p if (order_N[1:] > order_N[:-1]).all() else p.take(order_N)


def _twice(p: Predictions) -> list[str]:
    keys, count = np.unique(p.keys_N, return_counts=True)
    return keys[count > 1][:5].tolist()


def _differences(p: Predictions, q: Predictions) -> list[str]:
    if p.kind != q.kind or p.classes != q.classes:
        return [
            f"predictions of kind {p.kind} {p.classes} and {q.kind} {q.classes} cannot be compared; evaluate the same task"
        ]
    remedy = "evaluate both on the same test split"
    p, q = _by_key(p), _by_key(q)
    if alike(p, q):
        return []
    problems = []
    for one, other, name in ((p, q, "second"), (q, p, "first")):
        if len(missing := np.setdiff1d(one.keys_N, other.keys_N)):
            shown = ", ".join(missing[:5].tolist()) + (", ..." if len(missing) > 5 else "")
            problems.append(f"{len(missing)} test cases are missing from the {name} predictions ({shown}); {remedy}")
    if problems:
        return problems
    same_scale = (
        np.array_equal(p.scale_K, q.scale_K)
        if p.scale_K is not None and q.scale_K is not None
        else p.scale_K is q.scale_K
    )
    if not same_scale:
        problems.append(
            f"the targets are scaled by {p.scale_K} and by {q.scale_K}; use the same training split's deviations"
        )
    if p.horizons_H is not None and q.horizons_H is not None and not np.array_equal(p.horizons_H, q.horizons_H):
        problems.append(
            f"the horizons differ, {_few(p.horizons_H)} and {_few(q.horizons_H)}; evaluate both on one data set with one training split"
        )
    if (other_N := p.patients_N != q.patients_N).any():
        problems.append(
            f"case {p.keys_N[other_N][0]} belongs to patient {p.patients_N[other_N][0]} and to {q.patients_N[other_N][0]}"
        )
    if p.target.shape != q.target.shape or not np.array_equal(p.target, q.target, equal_nan=True):
        problems.append(f"the true targets differ{_where(p, q)}; {remedy}, with the same labels")
    return problems


def _few(horizons_H: np.ndarray) -> str:
    return ", ".join(f"{h:g}" for h in horizons_H[:3]) + ", ..." * (len(horizons_H) > 3)


def _where(p: Predictions, q: Predictions) -> str:
    if p.target.shape != q.target.shape:
        return f" in shape, {p.target.shape} and {q.target.shape}"
    differs_NK = ~((p.targets == q.targets) | (np.isnan(p.targets) & np.isnan(q.targets)))
    return f" for {differs_NK.any(1).sum()} cases (first {p.keys_N[differs_NK.any(1)][0]})"

"""What is wrong with predictions, in words: shapes first, then values. An empty list says that they are whole.

Shape letters: N cases, K classes, labels or targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from trainer.downstream.metrics.kinds import CODES, KINDS, PROBABILITIES

if TYPE_CHECKING:
    from trainer.downstream.metrics.predictions import Predictions

AXES = {
    "binary": (1, 1),
    "multiclass": (1, 2),
    "multilabel": (2, 2),
    "ordinal": (1, 2),
    "survival": (2, 1),
    "retrieval": (1, 2),
}
"""Axes of target and score."""
NAMED_COLUMNS = ("multiclass", "multilabel", "ordinal")
SUM_TOLERANCE = 1e-2
"""A softmax in half precision sums to one this closely; scores that are no probabilities do not."""


def problems_of(p: Predictions) -> list[str]:
    if p.kind not in KINDS:
        return [f"no such kind; there are {', '.join(KINDS)}"]
    # Each part asks what only holds once the one before has nothing to say.
    for part in (_cases, _columns, _values):
        if found := list(part(p)):
            return found
    return []


# ----------------------------------------------------------------------------------------------------------------- shapes


def _cases(p: Predictions) -> Iterator[str]:
    """As many keys, patients, targets and scores, with the axes of the kind."""
    N = p.keys_N.size
    if p.keys_N.shape != (N,) or p.patients_N.shape != (N,):
        yield f"keys {p.keys_N.shape} and patients {p.patients_N.shape} are two lists of one length"
        return
    # One structure's pixels are a list, several ones' have a column each.
    own = (p.target.ndim, 2 if p.kind == "segmentation" else p.target.ndim)
    for name, x, ndim in zip(("target", "score"), (p.target, p.score), AXES.get(p.kind, own), strict=True):
        if x.ndim != ndim or ndim not in (1, 2) or len(x) != N:
            yield f"{name} has shape {x.shape}, for {N} cases"


def _columns(p: Predictions) -> Iterator[str]:
    """As many columns as the kind asks for, and of what may stand beside target and score."""
    N = len(p)
    if p.kind in ("multilabel", "regression") and p.target.shape != p.score.shape:
        yield f"target {p.target.shape} and score {p.score.shape} differ in shape"
    pair = {"survival": (p.target, 1), "segmentation": (p.score, p.targets.shape[1])}.get(p.kind)
    if pair is not None and pair[0].shape[1] != 2 * pair[1]:
        yield "the target of survival (time, event) and the score of segmentation have two columns (a structure)"
    if p.kind == "segmentation" and len(p.classes) != (p.target.shape[1] if p.target.ndim == 2 else 0):
        yield f"masks of {p.targets.shape[1]} structures, {len(p.classes)} names of several"
    if p.soft_N3 is not None and p.soft_N3.shape != (N, 3):
        yield f"soft sums have shape {p.soft_N3.shape}, three numbers a case are needed"
    if p.survival_NH is not None and p.survival_NH.shape != (N, 0 if p.horizons_H is None else p.horizons_H.size):
        yield f"survival has shape {p.survival_NH.shape}, a column a horizon is needed"
    if p.kind in NAMED_COLUMNS and len(p.classes) != p.score.shape[1]:
        yield f"{p.score.shape[1]} columns, {len(p.classes)} names of classes"


# ----------------------------------------------------------------------------------------------------------------- values


def _values(p: Predictions) -> Iterator[str]:
    yield from _scores(p)
    yield from _targets(p)
    yield from _beside(p)


def _scores(p: Predictions) -> Iterator[str]:
    if not np.isfinite(p.score).all():
        rows_N = ~np.isfinite(p.scores).all(1)
        yield f"{rows_N.sum()} cases have a score that is not finite ({p.keys_N[rows_N][0]}, ...)"
    elif p.kind in PROBABILITIES and p.score.size and not (p.score.min() >= -1e-6 and p.score.max() <= 1 + 1e-6):
        yield "scores are probabilities, these leave 0..1 (are they logits?)"
    elif p.kind == "multiclass" and (np.abs(p.score.sum(1) - 1) > SUM_TOLERANCE).any():
        yield "the probabilities of a case do not sum to one"


def _targets(p: Predictions) -> Iterator[str]:
    known = p.target[~np.isnan(p.target)]
    if p.kind in ("binary", "multilabel") and not np.isin(known, (0, 1)).all():
        yield "targets are 0, 1 or NaN"
    if p.kind in CODES and not np.isin(known, np.arange(p.score.shape[1])).all():
        yield f"targets are whole numbers from 0 to {p.score.shape[1] - 1}, or NaN"
    if p.kind in ("regression", "survival", "segmentation") and np.isinf(known).any():
        yield "targets are finite, or NaN"
    if p.kind == "survival" and not np.isin(p.target[~np.isnan(p.target[:, 1]), 1], (0, 1)).all():
        yield "events are 0 or 1, or NaN"
    if p.kind == "segmentation" and not _countable(p):
        yield "pixels are counts, and the intersection is no larger than truth or prediction"


def _countable(p: Predictions) -> bool:
    both_NK, predicted_NK = np.hsplit(p.score, 2)
    true_NK = np.where(np.isnan(p.targets), np.inf, p.targets)
    return bool((both_NK >= 0).all() and (both_NK <= predicted_NK).all() and (both_NK <= true_NK).all())


def _beside(p: Predictions) -> Iterator[str]:
    """Horizons, survival over time and scales, where there are any."""
    h = p.horizons_H
    if h is not None and not (h.size and np.isfinite(h).all() and (np.diff(h) > 0).all()):
        yield "horizons are one or more rising times"
    if p.survival_NH is not None and not ((p.survival_NH >= 0) & (p.survival_NH <= 1)).all():
        yield "survival over time is a probability"
    if p.scale_K is not None and not (p.scale_K.shape == (p.targets.shape[1],) and (p.scale_K > 0).all()):
        yield "scale has one positive number a target"

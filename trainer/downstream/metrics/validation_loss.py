"""The loss of held-back cases, from what was said of them: it breaks ties of a metric that moves in steps.

Of the whole set, never of a batch, so that the number of ranks changes nothing.

Shape letters: N cases, K classes, labels, grades or targets, H x W pixels.
"""

from __future__ import annotations

import numpy as np

from trainer.downstream.metrics.predictions import Predictions

LEAST = 1e-7  # probabilities come from half or single precision, where 0 and 1 are what a long way off is rounded to


def validation_loss(p: Predictions, pixels_N: np.ndarray | None = None) -> float:
    """Mean cross-entropy, squared error in units of `scale_K`, or Cox's negative log partial likelihood an event; NaN where
    nothing is known.

    Args:
        pixels_N: of masks, each case's mean cross-entropy a pixel (`cross_entropy_of_pixels`).
    """
    if p.kind == "segmentation":
        return float(np.mean(pixels_N)) if pixels_N is not None and len(pixels_N) else float("nan")
    known = p.known()
    if not len(known):
        return float("nan")
    if p.kind == "survival":
        return _cox(known)
    if p.kind == "regression":
        scale_K = known.scale_K if known.scale_K is not None else np.ones(known.targets.shape[1])
        return float(np.nanmean(((known.targets - known.scores) / scale_K) ** 2))
    if p.kind == "multiclass":
        said_N = known.score[np.arange(len(known)), known.truth()]
        return float(-np.log(said_N.clip(LEAST)).mean())
    y_NK, s_NK = known.targets, known.scores
    if p.kind == "ordinal":
        y_NK = (known.target[:, None] >= np.arange(s_NK.shape[1])).astype(float)
    return float(np.nanmean(_cross_entropy(y_NK, s_NK)))


def cross_entropy_of_pixels(truth_KHW: np.ndarray, p_KHW: np.ndarray) -> float:
    """Mean over the pixels of all structures of a case."""
    return float(_cross_entropy(truth_KHW.astype(np.float64), p_KHW.astype(np.float64)).mean())


def _cross_entropy(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    p = p.clip(LEAST, 1 - LEAST)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def _cox(p: Predictions) -> float:
    """Breslow's treatment of ties."""
    time_N, event_N = p.target[:, 0], p.target[:, 1] == 1
    if not event_N.any():
        return float("nan")
    order = np.argsort(-time_N, kind="stable")
    log_sum_N = np.logaddexp.accumulate(p.score[order])
    # The risk set of a case ends with the last one of its own time.
    last_N = np.searchsorted(-time_N[order], -time_N[order], side="right") - 1
    terms_N = log_sum_N[last_N] - p.score[order]
    return float(terms_N[event_N[order]].mean())

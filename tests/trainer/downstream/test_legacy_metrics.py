"""Metrics kept for comparison with an earlier code base, against a literal reading of what it does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import DEFAULTS, METRICS

N = 40


def predictions(kind: str, target: np.ndarray, score: np.ndarray) -> Predictions:
    keys, classes = [f"k{i}" for i in range(N)], tuple("abcde")[: score.shape[1]]
    return Predictions(kind, np.array(keys), np.array(keys), target, score, classes)  # type: ignore[arg-type]


def test_kappa_is_a_mean_over_batches_with_logits_cut_at_one_half() -> None:
    rng = np.random.default_rng(0)
    grade_N, logit_NK = rng.integers(0, 5, N), rng.normal(0, 2, (N, 5))
    expected = []
    for start in (0, 16, 32):
        said = (logit_NK[start : start + 16] > 0.5).sum(1) - 1
        assert (said == -1).any() or start
        expected.append(cohen_kappa_score(grade_N[start : start + 16], said, weights="quadratic", labels=range(-1, 5)))
    p = predictions("ordinal", grade_N, 1 / (1 + np.exp(-logit_NK)))
    assert METRICS["kappa_contig"].compute(p) == pytest.approx(np.mean(expected), abs=1e-12)
    assert METRICS["kappa_contig"].compute(p) != pytest.approx(METRICS["kappa_quadratic"].compute(p), abs=1e-3)


def test_micro_auc_is_a_mean_over_batches() -> None:
    rng = np.random.default_rng(1)
    truth_NK, score_NK = rng.integers(0, 2, (N, 3)).astype(float), rng.random((N, 3))
    truth_NK[32:] = 0  # a batch without a positive has no value
    expected = [roc_auc_score(truth_NK[a : a + 16].ravel(), score_NK[a : a + 16].ravel()) for a in (0, 16)]
    p = predictions("multilabel", truth_NK, score_NK)
    assert METRICS["auc_contig"].compute(p) == pytest.approx(np.mean(expected), abs=1e-12)


def test_dice_is_soft_and_of_all_pixels_at_once() -> None:
    """Probabilities of two structures in images of one size, flattened over the set; a resample counts a case as often as it was drawn."""
    rng = np.random.default_rng(2)
    p_NKHW, t_NKHW = rng.random((N, 2, 6, 6)), rng.integers(0, 2, (N, 2, 6, 6))
    p, t = p_NKHW.flatten(), t_NKHW.flatten()
    soft_N3 = np.stack([(p_NKHW * t_NKHW).sum((1, 2, 3)), p_NKHW.sum((1, 2, 3)), t_NKHW.sum((1, 2, 3))], 1)
    said = p_NKHW > 0.5
    counts = np.hstack([(said & (t_NKHW == 1)).sum((2, 3)), said.sum((2, 3))])
    keys = np.array([f"k{i}" for i in range(N)])
    made = Predictions("segmentation", keys, keys, t_NKHW.sum((2, 3)), counts, ("disc", "atrophy"), soft_N3=soft_N3)
    dice = METRICS["dice_contig"]
    assert dice.compute(made) == pytest.approx(2 * (p * t).sum() / (p.sum() + t.sum()), abs=1e-12)
    drawn = rng.integers(0, N, N)
    p, t = p_NKHW[drawn].flatten(), t_NKHW[drawn].flatten()
    assert dice.weighted is not None
    weights = np.bincount(drawn, minlength=N)[None].astype(float)
    assert dice.weighted(made)(weights)[0] == pytest.approx(2 * (p * t).sum() / (p.sum() + t.sum()), abs=1e-12)
    assert dice.compute(made) != pytest.approx(METRICS["dice_patient"].compute(made), abs=1e-3)
    with pytest.raises(AssertionError, match="name it in the task's metrics"):
        dice.compute(replace(made, soft_N3=None))


def test_never_a_default() -> None:
    assert not {"kappa_contig", "auc_contig", "dice_contig"} & {m for names in DEFAULTS.values() for m in names}

"""The loss that breaks ties, against scikit-learn and lifelines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, mean_squared_error

from tests.trainer.downstream.cohorts import make, random_predictions
from trainer.downstream.metrics.validation_loss import LEAST, cross_entropy_of_pixels, validation_loss


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_classes_are_scikit_learns_log_loss() -> None:
    p = random_predictions("binary", rng())
    clipped = p.score.clip(LEAST, 1 - LEAST)
    assert validation_loss(p) == pytest.approx(log_loss(p.target, clipped))
    p = random_predictions("multiclass", rng())
    assert validation_loss(p) == pytest.approx(log_loss(p.truth(), p.score, labels=range(4)))
    p = random_predictions("multilabel", rng(), unknown=0.3)
    known = ~np.isnan(p.target)
    assert validation_loss(p) == pytest.approx(log_loss(p.target[known], p.score[known].clip(LEAST, 1 - LEAST)))
    p = make("ordinal", [0, 2, 1], [[1, 0.2, 0.1], [1, 0.9, 0.6], [1, 0.7, 0.3]])
    expected = (
        log_loss([0, 0, 1, 1, 1, 0], [0.2, 0.1, 0.9, 0.6, 0.7, 0.3]) * 2 / 3
    )  # the first column is right for nothing
    assert validation_loss(p) == pytest.approx(expected, rel=1e-4)


def test_numbers_in_units_of_their_deviation() -> None:
    p = random_predictions("regression", rng())
    assert p.scale_K is not None
    assert validation_loss(p) == pytest.approx(mean_squared_error(p.target / p.scale_K, p.score / p.scale_K))


def test_survival_is_lifelines_partial_likelihood() -> None:
    """At a coefficient of 1 on the risk itself. Their likelihood is Efron's; without ties it is Breslow's too."""
    from lifelines import CoxPHFitter

    r = rng()
    p = make("survival", np.stack([r.permutation(40) + 1.0, r.random(40) < 0.6], 1), r.normal(size=40))
    frame = pd.DataFrame({"r": p.score, "t": p.target[:, 0], "e": p.target[:, 1]})
    fitted = CoxPHFitter().fit(frame, "t", "e")
    at = make("survival", p.target, p.score * float(fitted.params_.iloc[0]))
    assert validation_loss(at) == pytest.approx(-fitted.log_likelihood_ / frame["e"].sum(), rel=1e-5)


def test_masks_by_their_pixels_and_nothing_known() -> None:
    t = np.array([[[1, 0], [0, 1]]])
    p = np.array([[[0.8, 0.1], [0.3, 0.9]]])
    assert cross_entropy_of_pixels(t, p) == pytest.approx(log_loss(t.ravel(), p.ravel()))
    counted = random_predictions("segmentation", rng(), n=2)
    assert validation_loss(counted, np.array([0.2, 0.4])) == pytest.approx(0.3)
    assert np.isnan(validation_loss(make("binary", [np.nan] * 3, [0.5] * 3)))
    assert np.isnan(validation_loss(make("survival", [[1, 0]] * 3, [0.5] * 3)))

"""Predictions: what is refused, what is kept in a file and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.downstream.cohorts import make, random_predictions
from trainer.downstream.metrics.table import KINDS, METRICS, Kind, Predictions, metric_of
from trainer.errors import UserError

NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "target", "score", "says"),
    [
        ("binary", [0, 1], [0.1, NAN], "not finite"),
        ("binary", [0, 1], [0.1, np.inf], "not finite"),
        ("binary", [0, 1], [-3, 4], "logits"),
        ("binary", [0, 11], [0.1, 0.2], "0, 1 or NaN"),
        ("binary", [0, 1, 1], [0.1, 0.2], "shape"),
        ("binary", [[0], [1]], [0.1, 0.2], "shape"),
        ("multiclass", [0, 2], [[0.5, 0.5], [0.5, 0.5]], "whole numbers from 0 to 1"),
        ("multiclass", [0, 1], [[0.5, 0.9], [0.5, 0.5]], "sum to one"),
        ("ordinal", [0, 1.5], [[1, 0.5], [1, 0.5]], "whole numbers"),
        ("multilabel", [[0, 1]], [[0.1, 0.2, 0.3]], "differ in shape"),
        ("regression", [1, np.inf], [1, 2], "finite"),
        ("survival", [[1, 2]], [0], "events"),
        ("survival", [[1, 1, 0]], [0], "two columns"),
        ("segmentation", [3], [[4, 5]], "intersection"),
        ("segmentation", [3], [[2, 1]], "intersection"),
        ("detection", [3], [[2, 1]], "no such kind"),
    ],
)
def test_what_is_no_prediction_is_refused(kind: Kind, target: object, score: object, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        make(kind, target, score)


def test_a_softmax_in_half_precision_sums_to_one() -> None:
    make("multiclass", [0, 1], [[0.5, 0.505], [0.5, 0.495]])
    with pytest.raises(AssertionError, match="sum to one"):
        make("multiclass", [0, 1], [[0.5, 0.52], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"horizons_H": [5, 3, 8, 14]}, "rising times"),
        ({"horizons_H": [3, 3, 8, 14]}, "rising times"),
        ({"horizons_H": [3, 5, 8, np.inf]}, "rising times"),
        ({"horizons_H": [3, 5, 8]}, "a column a horizon"),
        ({"horizons_H": None}, "a column a horizon"),
        ({"survival_NH": np.full((2, 4), 1.2)}, "a probability"),
        ({"survival_NH": np.full((2, 4), -0.1)}, "a probability"),
    ],
)
def test_survival_over_time_has_a_probability_a_horizon(changes: dict[str, Any], says: str) -> None:
    whole = make("survival", [[1, 1], [2, 0]], [0, 1])
    with pytest.raises(AssertionError, match=says):
        replace(whole, **changes)


def test_mse_needs_the_deviations_of_training() -> None:
    with pytest.raises(AssertionError, match="scale_K"):
        METRICS["mse"].compute(make("regression", [1, 2], [1, 2]))
    with pytest.raises(AssertionError, match="scale"):
        make("regression", [1, 2], [1, 2], scale=[0.0])


def test_a_metric_of_another_kind_is_refused() -> None:
    assert metric_of("auc", "binary") is METRICS["auc"]
    with pytest.raises(UserError, match="'c_index' of a binary task"):
        metric_of("c_index", "binary")
    with pytest.raises(UserError, match="did you mean 'dice_patient'"):
        metric_of("dice_patients", "segmentation")


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind: Kind, tmp_path: Path) -> None:
    p = random_predictions(kind, np.random.default_rng(1), 20, unknown=0.1)
    p.save(tmp_path / "deep" / "seed-0.npz")
    q = Predictions.load(tmp_path / "deep" / "seed-0.npz")
    assert (q.kind, q.classes) == (p.kind, p.classes)
    for a, b in zip(*[(x.keys_N, x.patients_N, x.target, x.score) for x in (p, q)], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (p.scale_K is None) == (q.scale_K is None)
    q.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "deep" / "seed-0.npz").read_bytes()
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["seed-0.npz"]


def test_a_file_that_holds_no_predictions_is_named(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.npz"
    whole = {
        "key": ["a"],
        "patient": ["a"],
        "target": [0.0],
        "score": [0.5],
        "classes": ["no", "yes"],
        "kind": "binary",
    }
    broken: list[dict[str, object]] = [
        {k: v for k, v in whole.items() if k != "target"},
        whole | {"kind": "binry"},
        whole | {"score": [NAN]},
        whole | {"score": ["high"]},
        whole | {"key": np.array([{"a": 1}], dtype=object)},
        whole | {"key": 3.0},
    ]
    for content in broken:
        np.savez(path, allow_pickle=True, **content)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="seed-0"):
            Predictions.load(path)
    for raw in (b"", b"PK\x03\x04 cut off", b"text"):
        path.write_bytes(raw)
        with pytest.raises(UserError, match="seed-0"):
            Predictions.load(path)
    with pytest.raises(UserError, match="nothing"):
        Predictions.load(tmp_path / "nothing.npz")

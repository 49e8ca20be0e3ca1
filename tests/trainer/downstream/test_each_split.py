"""Targets standardised and filled by each split itself, as ContIG did: what the number then is, and that it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from shards.read.dataset import Dataset
from tests.trainer.downstream.conftest import Finetune
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.predict import as_predictions
from trainer.downstream.targets.read import fitted, read_targets, targets_of_split
from trainer.downstream.task.read import parse_task
from trainer.errors import UserError

CONTENT = {"kind": "regression", "label": ["severity", "months"], "metric": "mse", "standardise": "each_split"}


@pytest.mark.parametrize("impute", ["none", "mean", "median"])
def test_squared_error_of_each_splits_own_z_scores(impute: str, demo_cohort: Path) -> None:
    data = Dataset.open(demo_cohort)
    train, test = (data.subset(s).indices for s in ("train", "test"))
    rng = np.random.default_rng(0)
    value_NT = rng.gamma(2, 3, (len(data), 2)) + 9 * np.isin(np.arange(len(data)), test)[:, None]
    value_NT[rng.random(value_NT.shape) < 0.2] = np.nan
    task = parse_task({"name": "t", **CONTENT, "impute": impute})
    targets = replace(read_targets(task, data, ("image",)), value_NT=value_NT)
    made = fitted(task, targets, train)
    z_NT = rng.normal(size=(len(test), 2))
    said = z_NT * np.array(made.question.std_K) + np.array(
        made.question.mean_K
    )  # what a head says, in the labels' units
    found = METRICS["mse"].compute(as_predictions(targets_of_split(task, made, test, "test"), data, test, said))
    literal = 0.0
    for k in (0, 1):
        y = value_NT[test, k].copy()
        known = ~np.isnan(y)
        mean, std = y[known].mean(), y[known].std()
        if impute != "none":
            y[~known] = mean if impute == "mean" else np.median(y[known])
        literal += np.nanmean((z_NT[:, k] - (y - mean) / std) ** 2)
    assert found == pytest.approx(literal, abs=1e-9)
    plain = parse_task({"name": "t", **CONTENT, "impute": impute, "standardise": "train"})
    assert targets_of_split(plain, made, test, "test") is made
    assert METRICS["mse"].compute(as_predictions(made, data, test, said)) > 2 * literal, "the splits' means differ"
    value_NT[test, 1] = 4.0
    with pytest.raises(UserError, match="months does not vary over split 'test'"):
        targets_of_split(task, replace(made, value_NT=value_NT), test, "test")
    data.close()


def test_only_numbers_are_standardised() -> None:
    with pytest.raises(UserError, match="standardise=each_split: a binary task has no numbers"):
        parse_task({"name": "t", "kind": "binary", "label": "x", "standardise": "each_split"})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_result_says_so_first(pretrained: Callable[[str], Path], finetune: Finetune, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    words = ["--task", str(path), "--method", "mrm_record", "--init", str(pretrained("mrm_record"))]
    for mode in ("finetune", "linear"):
        ended = finetune(tmp_path / mode, *words, "--mode", mode)
        assert ended.codes == [0], ended.text
        assert "STANDARDISED ON EACH SPLIT" in ended.text
        found = json.loads((tmp_path / mode / "result.json").read_bytes())
        assert found["first_line"].startswith("STANDARDISED ON EACH SPLIT")
        assert found["standardise"] == "each_split"
        told = Predictions.load(tmp_path / mode / "predictions" / "seed-0.npz")
        assert told.scale_K == pytest.approx(np.nanstd(told.target, 0)), "of the test cases"

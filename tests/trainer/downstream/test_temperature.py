"""Temperature: found where it was planted, fitted on validation alone, both numbers in the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from tests.trainer.downstream.cohorts import make
from tests.trainer.reporting.runs import write
from trainer.downstream.metrics.recalibrated import calibrated_entry, of_plain, recalibrated, with_temperature
from trainer.downstream.metrics.table import METRICS, Kind, Predictions
from trainer.downstream.metrics.validation_loss import validation_loss
from trainer.downstream.results import summary, write_result
from trainer.downstream.task.read import parse_task
from trainer.errors import UserError
from trainer.reporting import cases
from trainer.reporting.report import build, markdown
from trainer.reporting.result import read_result


def planted(kind: Kind, heat: float, seed: int = 0, n: int = 4000) -> Predictions:
    """Probabilities whose log odds are `heat` times too large."""
    rng = np.random.default_rng(seed)
    if kind == "multiclass":
        z_NK = rng.normal(0, 1.5, (n, 3))
        return make(kind, (z_NK + rng.gumbel(size=z_NK.shape)).argmax(1), softmax(heat * z_NK, 1))
    z_NK = rng.normal(0, 1.5, (n, 2))
    truth_NK = rng.random((n, 2)) < expit(z_NK)
    if kind == "multilabel":
        return make(kind, np.where(rng.random((n, 2)) < 0.2, np.nan, truth_NK), expit(heat * z_NK))
    if kind == "binary":
        return make(kind, truth_NK[:, 0], expit(heat * z_NK[:, 0]))
    cuts, x_N = np.array([-1.0, 1.0]), z_NK[:, 0]
    grade_N = (x_N[:, None] + rng.logistic(size=(n, 1)) > cuts).sum(1)
    return make(kind, grade_N, np.c_[np.ones(n), expit(heat * (x_N[:, None] - cuts))])


@pytest.mark.parametrize("heat", [0.4, 3.0])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "ordinal"])
def test_what_was_planted_is_found(kind: Kind, heat: float) -> None:
    val, test = planted(kind, heat), planted(kind, heat, seed=1)
    fit = of_plain(recalibrated(val).plain())
    assert fit.temperature == pytest.approx(heat, rel=0.12)
    cooled = with_temperature(test, fit)
    assert METRICS["brier"].compute(cooled) < METRICS["brier"].compute(test)
    assert METRICS["accuracy" if kind != "multilabel" else "f1_macro"].compute(cooled) == pytest.approx(
        METRICS["accuracy" if kind != "multilabel" else "f1_macro"].compute(test)
    )
    assert not fit.bounded


def test_the_divisor_is_the_best_one() -> None:
    p = planted("multilabel", 1.7, n=200)
    fit = recalibrated(p)
    assert fit.temperature is not None
    losses = [
        validation_loss(with_temperature(p, replace(fit, temperature=fit.temperature * f))) for f in (0.9, 1.0, 1.1)
    ]
    assert losses[1] == min(losses)


def test_a_validation_split_without_an_error_sets_no_limit() -> None:
    fit = recalibrated(make("binary", [0, 1] * 10, [0.3, 0.7] * 10))
    assert fit.bounded


def test_a_result_holds_both(tmp_path: Path) -> None:
    words: dict[str, Any] = {
        "name": "own",
        "kind": "binary",
        "label": "x",
        "protocol": {"seeds": [0, 1]},
        "bootstrap": {"draws": 100},
    }
    task = parse_task(words | {"calibration": "temperature"})
    about: dict[str, Any] = {
        "method": "gimp", "mode": "finetune", "init": {"kind": "scratch"}, "control": None, "first_line": "", "seeds": [0, 1],
        "n": {"train": 9, "val": 9, "test": 400, "test_patients": 400}, "chosen": [],
    }  # fmt: skip
    test = [planted("binary", 3.0, seed=s, n=400) for s in (5, 5)]
    fits = [recalibrated(planted("binary", 3.0, seed=s)) for s in (2, 3)]
    found = write_result(tmp_path, task, about, test, ["auc", "brier", "ece"], fits=fits)
    assert set(found["calibrated"]) == {"brier", "ece"}
    assert found["calibrated"]["brier"]["value"] < found["metrics"]["brier"]["value"]
    assert [f["temperature"] for f in found["recalibration"]] == [f.temperature for f in fits]
    kept = Predictions.load(tmp_path / "predictions/seed-0.npz")
    assert np.array_equal(kept.score, test[0].score), "predictions are what the system said"
    assert "brier with log odds divided" in summary(found, tmp_path)


def test_a_report_shows_both_and_finds_a_temperature_that_was_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a") / "result.json"
    content = json.loads(path.read_text())
    seeds = [Predictions.load(path.parent / n) for n in content["predictions"]]
    fits = [recalibrated(p) for p in seeds]
    content["recalibration"] = [f.plain() for f in fits]
    content["calibrated"] = {m: calibrated_entry(seeds, fits, m, 100, 0, 0.95) for m in ("brier", "ece")}
    path.write_text(json.dumps(content))
    said = markdown(build([tmp_path], 100, 0))
    assert "Calibration as said and by temperature" in said
    content["recalibration"][0]["temperature"] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"the temperatures that it states give calibrated\.brier"):
        cases.recomputed(read_result(path))
    content["recalibration"] = [{}] * 3
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="misshapen"):
        cases.recomputed(read_result(path))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"kind": "regression", "label": "x"}, "says no probabilities of classes"),
        ({"kind": "binary", "label": "x", "mode": "zeroshot", "prompts": "p"}, "looks at no validation split"),
    ],
)
def test_what_has_no_probabilities_or_no_validation_is_refused(words: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=f"calibration=temperature.*{why}.*leave it out"):
        parse_task({"name": "own", "calibration": "temperature", **words})

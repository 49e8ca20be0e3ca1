"""Through the real runner: a metric that never moves, a small probe, and what a run says first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from shards.read.dataset import Dataset
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.launching import rows
from trainer.downstream.metrics.predictions import Predictions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Pretrained = Callable[[str], Path]


def test_a_flat_metric_takes_the_smallest_loss_and_says_so(
    pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    """At a rate of nearly zero no grade is decided otherwise: the first look used to be kept, whatever came after it."""
    words = [
        "--task",
        "demo_grade",
        "--method",
        "mgi",
        "--init",
        str(pretrained("mgi")),
        "protocol.lr=1e-9",
        "protocol.steps=4",
    ]
    ended = finetune(tmp_path / "run", *words, "protocol.evaluations=4")
    assert ended.codes == [0], ended.text
    looks = rows(tmp_path / "run" / "seed-0" / "lr-1e-09")
    assert len({r["val/kappa_quadratic"] for r in looks}) == 1
    losses = [r["val/loss"] for r in looks]
    assert all(np.isfinite(losses))
    found = json.loads((tmp_path / "run" / "result.json").read_bytes())
    (chosen,) = found["chosen"]
    assert chosen["step"] == max(i for i, v in enumerate(losses, 1) if v == min(losses))
    assert (chosen["flat"], chosen["looks"], chosen["val_loss"]) == (True, 4, min(losses))
    (warning,) = [w for w in found["warnings"] if "evaluations on the validation split" in w]
    assert "so it chose nothing" in warning
    assert f"warning: {warning}" in ended.text


def test_a_small_probe_is_scikit_learns(
    pretrained: Pretrained, finetune: Finetune, cohort: Path, tmp_path: Path
) -> None:
    """From the kept features and the grid's choice to the scores in predictions/."""
    words = ["--task", "demo_subtype", "--method", "gimp", "--init", str(pretrained("gimp")), "--mode", "linear"]
    ended = finetune(tmp_path / "run", *words)
    assert ended.codes == [0], ended.text
    found = json.loads((tmp_path / "run" / "result.json").read_bytes())
    (chosen,) = found["chosen"]
    assert chosen["solver"] == "converged"
    assert len(chosen["grid"]) == 7
    kept = {
        f.parent.name.rsplit("-", 1)[0]: np.load(f).astype(float) for f in tmp_path.glob(".features/*/features.npy")
    }
    data = Dataset.open(cohort)
    codes = {s: data.subset(s).labels["subtype"] for s in ("train", "test")}
    mean_D, std_D = kept["train"].mean(0), kept["train"].std(0)
    varies_D = std_D > 1e-6 * np.abs(mean_D)
    z = {s: ((x - mean_D) / np.where(varies_D, std_D, 1)) for s, x in kept.items()}
    model = LogisticRegression(C=1 / (len(z["train"]) * chosen["weight_decay"]), max_iter=20_000, tol=1e-10)
    expected = model.fit(z["train"], codes["train"]).predict_proba(z["test"])[:, 1]
    told = Predictions.load(tmp_path / "run" / "predictions" / "seed-0.npz")
    np.testing.assert_allclose(told.score, expected, atol=1e-4)


def test_the_first_lines_say_which_word_is_the_event(
    pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    words = ["--task", "demo_survival", "--method", "gimp", "--init", str(pretrained("gimp")), "protocol.batch=8"]
    ended = finetune(tmp_path / "run", *words)
    assert ended.codes == [0], ended.text
    line = next(
        x for x in ended.text.splitlines() if x.startswith("event: event '1' (against '0'; as `event_value` says): ")
    )
    before = ended.text[: ended.text.index(line)].splitlines()
    assert len(before) < 4, "nothing but the task's file stands before it"
    found = json.loads((tmp_path / "run" / "result.json").read_bytes())
    assert found["meaning"] == [line]
    assert found["answers"]["words"]["event"] == {"yes": ["1"], "no": ["0"], "by": "as `event_value` says"}
    told = Predictions.load(tmp_path / "run" / "predictions" / "seed-0.npz")
    counts = found["answers"]["counts"]["test"]
    assert counts == {"events": int(told.target[:, 1].sum()), "censored": int((1 - told.target[:, 1]).sum())}


def test_several_runs_share_a_process() -> None:
    """What tests/real/several.py does: alone, the second run finds the first one's process group and takes it."""
    code = "from trainer.runtime import finish, start\nassert start(0) == start(0)\nprint('shared')\nfinish()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=_alone())
    assert ended.stdout.strip().endswith("shared"), ended.stderr


def _alone() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}

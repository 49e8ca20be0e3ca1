"""NaN or Inf anywhere: all ranks skip the same step, learning rate and counters stand still, the budget ends the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.launching import TINY, launch, rows

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(300)]
RUN = [*TINY, "steps=6", "checkpoint.every=1", "checkpoint.keep=10", "optim.warmup=0.9"]
FAULTS = {"loss": {"step": 3, "value": "nan", "rank": 1}, "grad": {"step": 5, "value": "inf", "rank": 0}}


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (3, "bf16")]
)
def test_a_bad_step_changes_nothing_on_any_rank(stage: int, precision: str, tmp_path: Path, demo_cohort: Path) -> None:
    out = tmp_path / "run"
    words = [*RUN, f"zero.stage={stage}", f"precision={precision}", f"out={out}"]
    ended = launch(2, words, demo_cohort, FAULTS)
    assert ended.codes == [0, 0], ended.text
    lines = rows(out)
    assert [r["skipped"] for r in lines] == [False, False, True, False, True, False]
    lr = [r["lr"] for r in lines]
    assert lr[2] == lr[3] != lr[1], "the learning rate stands still on a skipped step"
    assert lr[4] == lr[5] != lr[3]
    states = [json.loads((out / "checkpoints" / f"step-{s:08d}" / "state.json").read_text()) for s in range(1, 7)]
    assert [s["progress"]["updates"] for s in states] == [1, 2, 2, 3, 3, 4]
    probes = [s["probe"] for s in states]
    assert probes[2] == probes[1], "a skipped step left the weights alone"
    assert probes[4] == probes[3]
    assert len(set(probes)) == 4, "real steps changed them"
    text = ended.outputs[0]
    assert "step 3: not finite, skipped on all ranks; its samples: demo-" in text
    assert "step 5: not finite" in text


def test_the_budget_ends_the_run_and_names_the_samples(tmp_path: Path, demo_cohort: Path) -> None:
    faults = {"loss": {"step": [2, 4], "value": "inf", "rank": 0}}
    ended = launch(1, [*RUN, "health.max_bad_steps=1", f"out={tmp_path / 'run'}"], demo_cohort, faults)
    assert ended.codes == [1], ended.text
    assert "2 steps had a non-finite loss or gradient (health.max_bad_steps=1)" in ended.text
    assert "step 2: demo-" in ended.text
    assert "step 4: demo-" in ended.text

"""float16 with its loss scale, on a CPU, which takes it where it is told so: what a run does with a scale, not how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.downstream.test_resume_states import held
from tests.trainer.forking import Forks
from tests.trainer.launching import rows, series
from tests.trainer.test_compiling import SMALL

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(300)]
WHAT = ("step", "loss", "grad_norm", "lr", "keys", "skipped", "loss_scale")
HALF: dict[str, Any] = {"half": {}}
OVERFLOW = {"grad": {"step": [3, 4], "value": "inf"}}
"""DeepSpeed leaves its scale as it is after the first overflow and halves it after the second (hysteresis)."""


def run(forks: Forks, out: Path, words: list[str], faults: dict[str, Any], code: int = 0, ranks: int = 1) -> str:
    ended = forks.launch(ranks, [*words, f"out={out}"], HALF | faults)
    assert ended.codes == [code] * ranks, ended.text
    return str(ended.text)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_run_goes_on_with_its_scale(stage: int, cohort: Path, forks: Forks, tmp_path: Path) -> None:
    words = [*SMALL, f"data.path={cohort}", f"zero.stage={stage}", "steps=7", "checkpoint.every=1"]
    half = [*words, "precision=fp16"]
    run(forks, tmp_path / "whole", half, OVERFLOW)
    whole = rows(tmp_path / "whole")
    assert [row["skipped"] for row in whole] == [False, False, True, True, False, False, False]
    assert [row["loss_scale"] for row in whole] == [2.0**16] * 3 + [2.0**15] * 4
    assert whole[-1]["skipped_steps"] == 0, "a scale that finds its level is no bad step"
    run(forks, tmp_path / "cut", half, OVERFLOW | {"die": {"step": 6}, "prompt": {}}, -9)
    assert "going on from" in run(forks, tmp_path / "cut", half, {})
    assert series(tmp_path / "cut", *WHAT) == series(tmp_path / "whole", *WHAT)  # to the last bit


def test_another_number_of_ranks_takes_the_scale_and_all_else(cohort: Path, forks: Forks, tmp_path: Path) -> None:
    words = [*SMALL, f"data.path={cohort}", "zero.stage=2", "steps=6", "checkpoint.every=1", "precision=fp16"]
    kept: dict[str, Any] = {"states": {"to": str(tmp_path), "at": 5}}
    run(forks, tmp_path / "moved", words, OVERFLOW | kept | {"die": {"step": 6}}, -9, ranks=2)
    run(forks, tmp_path / "moved", words, kept)
    saved, loaded = held(tmp_path, "saved", 5, 0), held(tmp_path, "loaded", 5, 0)
    assert saved.keys() == loaded.keys()
    assert [n for n in saved if not torch.equal(saved[n], loaded[n])] == []
    assert [row["loss_scale"] for row in rows(tmp_path / "moved")] == [2.0**16] * 3 + [2.0**15] * 3

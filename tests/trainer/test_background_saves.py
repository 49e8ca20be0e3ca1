"""A checkpoint that is written while training goes on is the one that training would have waited for, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.forking import Forks
from tests.trainer.launching import TINY, launch, rows
from tests.trainer.saves_worker import CASES
from trainer.state.copies import HostCopies
from trainer.state.files import problem

RUN = [*TINY, "steps=9", "checkpoint.every=4", "checkpoint.write=background"]
pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("world", [1, 2])
def test_what_changes_after_the_copy_does_not_reach_the_file(world: int, forks: Forks, tmp_path: Path) -> None:
    ended = forks.launch(world, [str(tmp_path)], program="tests.trainer.saves_worker")
    assert ended.codes == [0] * world, ended.text
    for rank in range(world):
        found: dict[str, dict[str, Any]] = json.loads((tmp_path / f"rank-{rank}.json").read_bytes())
        assert len(found) == len(CASES)
        for case, told in found.items():
            assert told["differs"] == [], case
            assert told["second differs"] == [], case
            assert not told["begun"], case
            assert told["reused"], "the second save copies into the memory of the first"
            assert told["ready"] is (case[0] in "13"), "copies lie in memory that was made ready, where it was"
            assert {"state.json", "best.safetensors", f"rank-{rank:05d}.pt"} <= set(told["changed"]), (case, told)
            if rank == 0 and "fp32" in case and (world == 1 or "3" not in case):
                assert 0 <= told["bytes"] - told["predicted"] <= 64, "--dry-run counts all but buffers"
            assert any(k.startswith("engine/") for k in told["changed"]), "a step changes what is saved"
        refused = json.loads((tmp_path / f"refused-{rank}.json").read_bytes())
        assert "the checkpoint at step 1 could not be written" in refused["said"]
        assert refused["closed"] == [True] * (rank == 0), "a save that is refused leaves no file open"
        assert refused["kept"] is False, "DeepSpeed holds nothing of it"


def test_memory_that_is_not_there_is_named_with_what_needs_none() -> None:
    vast = torch.empty(1 << 60, dtype=torch.uint8, device="meta")
    with pytest.raises(MemoryError, match=r"checkpoint\.write=wait copies nothing"):
        HostCopies().of({"x": vast})


def whole(out: Path) -> list[str]:
    return [p.name for p in sorted((out / "checkpoints").glob("step-*")) if problem(p) is None]


def test_a_stop_waits_for_its_save_and_a_second_one_does_not(tmp_path: Path, demo_cohort: Path) -> None:
    """SIGTERM: status 75 with the last save complete, however late its writers begin. A second SIGINT while the writer of rank 1 hangs
    in the last save, and that of rank 0 waits for it: the processes end, the save before is whole, the same command goes on from it."""
    words = [*RUN, "zero.stage=1", f"out={tmp_path}"]
    stopped = launch(2, words, demo_cohort, {"signal": {"step": 2, "name": "SIGTERM", "rank": 1}, "late": {"rank": 0}})
    assert stopped.codes == [75, 75], stopped.text
    assert whole(tmp_path) == ["step-00000003"]
    twice = {"signal": {"step": 5, "name": "SIGINT", "group": True}, "interrupt": {"step": 6, "rank": 1}}
    ended = launch(2, words, demo_cohort, twice, limit=100)
    assert ended.codes == [130, 130], ended.text
    assert "interrupted: ended at once" in ended.text
    assert whole(tmp_path) == ["step-00000003", "step-00000004"]
    again = launch(2, words, demo_cohort)
    assert again.codes == [0, 0], again.text
    assert "step-00000004 (step 4)" in again.text
    assert [r["step"] for r in rows(tmp_path)] == list(range(1, 10))
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))


def test_going_back_waits_for_the_save_to_go_back_to(tmp_path: Path, demo_cohort: Path) -> None:
    """No save is written before somebody waits for it: that of step 4, which the spike at step 6 asks for, is written then."""
    watch = [f"health.rollback.{w}" for w in ("times=1", "over=8", "steps=2", "before=1")]
    fault = {"loss": {"step": [6, 7], "value": "nan"}, "late": {}}
    ended = launch(1, [*RUN, *watch, f"out={tmp_path}"], demo_cohort, fault)
    assert ended.codes == [0], ended.text
    assert "step-00000004 (step 4)" in ended.text.split("The run goes back")[1]
    assert [r["step"] for r in rows(tmp_path) if r.get("left_out")] == [5, 6, 7]


def test_an_error_of_the_training_leaves_the_save_before_it_complete(tmp_path: Path, demo_cohort: Path) -> None:
    fault = {"loss": {"step": [6], "value": "nan"}, "late": {}}
    ended = launch(1, [*RUN, "health.max_bad_steps=0", f"out={tmp_path}"], demo_cohort, fault)
    assert ended.codes == [1], ended.text
    assert whole(tmp_path) == ["step-00000004"]

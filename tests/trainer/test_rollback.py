"""A spike or a row of bad steps: back to the checkpoint before, the window left out, and the losses of a run that never had its batches."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.launching import TINY, launch, rows
from trainer.config.shared import Rollback
from trainer.errors import TrainingError, UserError
from trainer.health.spikes import RollBack, Spikes
from trainer.loop import Progress
from trainer.state import left_out

WATCH = [
    "health.rollback.times=1", "health.rollback.over=8", "health.rollback.steps=2", "health.rollback.before=1",
]  # fmt: skip
RUN = [*TINY, *WATCH, "steps=24", "checkpoint.every=5", "checkpoint.keep=10", "method.dropout=0.1"]
TIMED = ("samples_per_s", "data_wait", "peak_memory")


def told(out: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in TIMED} for r in rows(out)]


def watch(**given: Any) -> tuple[Spikes, Progress]:
    progress = Progress()
    return Spikes(Rollback(times=1, over=8, steps=2, **given), progress), progress


# Losses that rise by a hundred, and losses that are not finite: over both ranks, though one alone has them.
@pytest.mark.parametrize(
    ("world", "value", "rank", "stage"), [(1, 100.0, 0, 1), pytest.param(2, "nan", 1, 3, id="2-nan")]
)
@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_losses_are_those_of_a_run_that_never_had_the_window(
    world: int, value: Any, rank: int, stage: int, tmp_path: Path, demo_cohort: Path
) -> None:
    words = [*RUN, f"zero.stage={stage}"]
    fault = {"loss": {"step": [17, 18], "value": value, "rank": rank}}
    ended = launch(world, [*words, f"out={tmp_path / 'spiked'}"], demo_cohort, fault)
    assert ended.codes == [0] * world, ended.text
    assert "steps 16 to 18: the last 2 steps in a row were not finite or far above" in ended.outputs[0]
    assert "going on from" in ended.outputs[0].split("The run goes back")[1]
    [window] = left_out.windows(tmp_path / "spiked")
    assert (window["first"], window["last"]) == (16, 18)
    assert {s: len(keys) for s, keys in window["samples"].items()} == {"16": 8, "17": 8, "18": 8}
    lines = told(tmp_path / "spiked")
    assert [r["step"] for r in lines] == list(range(1, 25)), "each step stands in the log once"
    assert [r["step"] for r in lines if r.get("left_out")] == [16, 17, 18]

    never = tmp_path / "never"
    never.mkdir()
    (never / left_out.NAME).write_text(json.dumps({"windows": [window]}))
    without = launch(world, [*words, f"out={never}"], demo_cohort)
    assert without.codes == [0] * world, without.text
    assert told(never) == lines
    assert (never / "weights.safetensors").read_bytes() == (tmp_path / "spiked" / "weights.safetensors").read_bytes()


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_ends_it(tmp_path: Path, demo_cohort: Path) -> None:
    """No checkpoint before the window; a second spike after the one rollback that is allowed, whose window stays left out."""
    fault = {"loss": {"step": [11, 12], "value": "inf"}}
    early = launch(1, [*RUN, "checkpoint.every=20", f"out={tmp_path / 'early'}"], demo_cohort, fault)
    assert early.codes == [1], early.text
    assert "There is no complete checkpoint before step 10 to go back to" in early.text
    assert not (tmp_path / "early" / left_out.NAME).exists()

    fault = {"loss": {"step": [12, 13, 20, 21], "value": 50.0}}
    twice = launch(1, [*RUN, f"out={tmp_path / 'twice'}"], demo_cohort, fault)
    assert twice.codes == [1], twice.text
    assert "steps 20 to 21" in twice.text
    assert "has gone back 1 time already (health.rollback.times=1)" in twice.text
    again = launch(1, [*RUN, "health.rollback.times=2", f"out={tmp_path / 'twice'}"], demo_cohort)
    assert again.codes == [0], again.text
    assert [r["step"] for r in rows(tmp_path / "twice") if r.get("left_out")] == [11, 12, 13]


def test_a_loss_stands_apart_by_the_spread_of_those_before() -> None:
    spikes, progress = watch(spike=10.0)
    for step in range(1, 9):
        assert not spikes.above(1e9), "too few losses to compare with"
        spikes.add(step, 1.0 + 0.1 * (-1) ** step, bad=False)
    assert progress.recent == pytest.approx([0.9, 1.1] * 4)
    # Median 1, distance .1 each: the spread is .148.
    assert not spikes.above(1 + 1.47)
    assert spikes.above(1 + 1.49)
    assert not spikes.above(math.nan), "what is not finite is judged by the step that is skipped"
    flat, progress = watch(spike=10.0)
    progress.recent = [2.0] * 8
    assert not flat.above(2.19), "a hundredth of the median counts as spread"
    assert flat.above(2.21)


def test_a_row_is_broken_by_a_good_step() -> None:
    spikes, progress = watch(before=4)
    spikes.add(5, 9.0, bad=True)
    spikes.add(6, 1.0, bad=False)
    spikes.add(7, 9.0, bad=True)
    assert progress.recent == [1.0], "bad losses are no yardstick"
    with pytest.raises(RollBack) as back:
        spikes.add(8, math.nan, bad=True)
    assert (back.value.first, back.value.last) == (3, 8)
    progress.rollbacks = 1
    with pytest.raises(TrainingError, match="gone back 1 time already"):
        spikes.add(9, 9.0, bad=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"windows": [{"first": 3}]}', '{"windows": [{"first": 4, "last": 3}]}'])
def test_a_damaged_list_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / left_out.NAME).write_text(text)
    with pytest.raises(UserError, match="not the list of steps that the run left out"):
        left_out.windows(tmp_path)


class Folder:
    """Checkpoints as `settle` sees them."""

    def __init__(self, root: Path, known: dict[int, int]):
        self.root = root
        for step, rollbacks in known.items():
            (root / f"step-{step:08d}").mkdir(parents=True)
            progress = {"step": step, "rollbacks": rollbacks}
            (root / f"step-{step:08d}" / "state.json").write_text(json.dumps({"progress": progress}))

    def complete(self) -> list[Path]:
        return sorted(self.root.glob("step-*"), reverse=True)


def test_checkpoints_behind_a_window_go_even_after_a_kill(tmp_path: Path) -> None:
    """Killed between the list and the removal: those that do not know of a window before them are of the lost training."""
    folder = Folder(tmp_path / "checkpoints", {5: 0, 10: 0, 15: 1, 20: 0, 25: 2})
    found = [{"first": 8, "last": 9, "why": "", "samples": {}}, {"first": 18, "last": 19, "why": "", "samples": {}}]
    (tmp_path / left_out.NAME).write_text(json.dumps({"windows": found}))
    left_out.settle(tmp_path, folder)  # type: ignore[arg-type]
    assert [p.name for p in folder.complete()] == ["step-00000025", "step-00000015", "step-00000005"]

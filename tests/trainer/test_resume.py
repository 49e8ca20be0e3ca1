"""k + m steps equal k, kill -9, m steps; and the same sequence on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.launching import TINY, launch, series

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]
WHAT = ("step", "loss", "loss/rec", "loss/triplet", "grad_norm", "lr", "keys")
RUN = [*TINY, "method.dropout=0.1", "steps=12", "checkpoint.every=3", "data.workers=2"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_kills_change_nothing(stage: int, tmp_path: Path, demo_cohort: Path) -> None:
    words = [*RUN, f"zero.stage={stage}"]
    whole = launch(2, [*words, f"out={tmp_path / 'whole'}"], demo_cohort)
    assert whole.codes == [0, 0], whole.text
    cut = [*words, f"out={tmp_path / 'cut'}"]
    for step in (5, 8):  # both inside the first epoch, between checkpoints
        died = launch(2, cut, demo_cohort, {"die": {"step": step}})
        assert died.codes == [-9, -9], died.text
    again = launch(2, cut, demo_cohort)
    assert again.codes == [0, 0], again.text
    assert "going on from" in again.outputs[0]
    assert series(tmp_path / "cut", *WHAT) == series(tmp_path / "whole", *WHAT)  # bit-equal: no tolerance
    assert (tmp_path / "cut" / "weights.safetensors").read_bytes() == (
        tmp_path / "whole" / "weights.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_other_numbers_of_ranks_continue_the_sequence(stage: int, tmp_path: Path, demo_cohort: Path) -> None:
    """Under ZeRO 1 a process of its own converts the checkpoint, as for a user; under 2 and 3 its words are run by a rank."""
    how: dict[str, Any] = {} if stage == 1 else {"convert": {}}
    words = [*TINY, "steps=9", "checkpoint.every=3", f"zero.stage={stage}"]
    whole = launch(2, [*words, f"out={tmp_path / 'whole'}"], demo_cohort)
    assert whole.codes == [0, 0], whole.text
    moved = [*words, f"out={tmp_path / 'moved'}"]
    for world, step in ((2, 3), (1, 6)):
        died = launch(world, moved, demo_cohort, {**how, "die": {"step": step + 1}})
        assert died.codes == [-9] * world, died.text
    last = launch(4, moved, demo_cohort, how)
    assert last.codes == [0] * 4, last.text
    assert series(tmp_path / "moved", "step", "keys") == series(tmp_path / "whole", "step", "keys")
    for mine, theirs in zip(series(tmp_path / "moved", "loss"), series(tmp_path / "whole", "loss"), strict=True):
        assert mine[0] == pytest.approx(theirs[0], rel=1e-5)


def test_sgd_goes_on_alike_and_says_that_its_momentum_is_bound_to_the_ranks(tmp_path: Path, demo_cohort: Path) -> None:
    words = [*TINY, "steps=5", "checkpoint.every=2", "zero.stage=1", "optim.kind=sgd", "optim.lr=0.01"]
    whole = launch(2, [*words, f"out={tmp_path / 'whole'}"], demo_cohort)
    assert whole.codes == [0, 0], whole.text
    cut = [*words, f"out={tmp_path / 'cut'}"]
    died = launch(2, cut, demo_cohort, {"die": {"step": 4}})
    assert died.codes == [-9, -9], died.text
    alone = launch(1, cut, demo_cohort)
    assert alone.codes == [2], alone.text
    assert "DeepSpeed converts Adam's state, not SGD's; give it that number of ranks again" in alone.text
    again = launch(2, cut, demo_cohort)
    assert again.codes == [0, 0], again.text
    assert series(tmp_path / "cut", *WHAT) == series(tmp_path / "whole", *WHAT)

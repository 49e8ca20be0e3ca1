"""The last life that took a run's folder is the only one that writes into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.state import fence, files
from trainer.state.fence import Fenced, Life


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    fence.leave(tmp_path)


def another_takes(run: Path, life: Life) -> None:
    """As another process does: this one keeps its token."""
    mine = fence._held.get(run)
    fence.take(run, life)
    fence._held.pop(run)
    if mine is not None:
        fence._held[run] = mine


def test_a_later_life_ends_the_writing_of_an_earlier_one(run: Path) -> None:
    fence.take(run, Life("77", 0, "n1", 1))
    files.write_atomic(run / "a", b"first")
    tmp = run / "tmp"
    tmp.mkdir()
    another_takes(run, Life("77", 1, "n2", 2))
    for write in (
        lambda: files.write_atomic(run / "a", b"late"),
        lambda: files.publish(tmp, run / "final", {}),
        lambda: files.remove(tmp),
    ):
        with pytest.raises(Fenced, match="job 77, restart 1, process 2 on n2 has taken over; this life writes no more"):
            write()
    assert (run / "a").read_bytes() == b"first"
    assert sorted(p.name for p in run.iterdir()) == [".fence", "a", "tmp"]


def test_an_earlier_life_that_comes_late_is_refused(run: Path) -> None:
    another_takes(run, Life("77", 2, "n2", 2))
    with pytest.raises(Fenced, match=r"restart 2.* has taken over from job 77, restart 1"):
        fence.take(run, Life("77", 1, "n1", 1))
    assert fence.holder(run) == Life("77", 2, "n2", 2)


def test_only_lives_of_one_job_succeed_each_other() -> None:
    one = Life("77", 1, "n1", 1)
    assert one.succeeds(Life("77", 0, "n9", 9))
    assert not one.succeeds(Life("77", 1, "n9", 9))
    assert not one.succeeds(Life("78", 0, "n9", 9))
    assert not one.succeeds(None)
    assert not Life("", 1, "n1", 1).succeeds(Life("", 0, "n1", 1))


def test_other_folders_are_free_and_a_damaged_fence_is_closed(
    run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fence.take(run, Life("", 0, "here", os.getpid()))
    files.write_atomic(tmp_path_factory.mktemp("else") / "x", b"x")
    (run / ".fence").write_text("{")
    with pytest.raises(Fenced, match="nobody has taken over"):
        fence.check(run / "x")
    assert fence.holder(run) is None


def test_who_a_process_is() -> None:
    assert Life.here({}).tag == ""
    task = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "3", "SLURM_RESTART_COUNT": "2"}
    assert (Life.here(task).job, Life.here(task).count, Life.here(task).tag) == ("77", 2, "-77.2")
    # In an allocation, but no task of it: started by hand.
    assert Life.here({"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "2"}).tag == ""

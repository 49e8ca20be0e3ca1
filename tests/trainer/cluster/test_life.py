"""Requeued or not: the decision at the end of each life of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.cluster.desk import LIMIT, Commands
from trainer.cluster.life import begin, end, job_of
from trainer.cluster.record import Record

HERE = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "n[1-2]"}


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return make(tmp_path)


def make(tmp_path: Path, **more: Any) -> Record:
    folder = tmp_path / "run" / "slurm" / "stamp"
    folder.mkdir(parents=True)
    about = {"command": "pretrain", "words": [], "array": False, "runs": [str(tmp_path / "run")], "points": []}
    (folder / "job.json").write_text(json.dumps({**about, "profile": {"max_restarts": 2}, **more}))
    return Record(folder, 0 if more.get("array") else None)


def saves(record: Record, step: int, part: str = "") -> None:
    folder = record.run / part / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")


def life(record: Record, slurm: Commands, code: int, restart: int = 0, saved: int | None = None, part: str = "") -> int:
    environ = HERE | {"SLURM_RESTART_COUNT": str(restart)}
    slurm.job("RUNNING", restart)
    begin(record.folder, environ)
    if saved is not None:
        saves(record, saved, part)
    return end(record.folder, code, environ)


def requeues(slurm: Commands) -> int:
    return sum(call.startswith("scontrol requeue") for call in slurm.calls)


def test_done(record: Record, slurm: Commands) -> None:
    assert life(record, slurm, 0, saved=10) == 0
    assert (record.status.state, record.status.job, record.status.nodes) == ("done", "77", "n[1-2]")
    assert requeues(slurm) == 0
    assert [e["event"] for e in record.lives] == ["begin", "end"]
    assert record.lives[1]["gained"]


def test_input_to_change_is_not_tried_again(record: Record, slurm: Commands) -> None:
    assert life(record, slurm, 2) == 2
    assert record.status.state == "failed"
    assert "something to change in the input" in record.status.reason
    assert requeues(slurm) == 0


def test_a_stop_is_requeued_as_often_as_it_takes(record: Record, slurm: Commands) -> None:
    for restart in range(6):
        life(record, slurm, 75, restart, saved=restart)
        assert (record.status.state, record.status.fruitless) == ("requeued", 0)
    assert requeues(slurm) == 6


def test_a_hang_is_named_with_its_report(record: Record, slurm: Commands) -> None:
    reports = [record.run / "hang" / name / "report.txt" for name in ("step-00000003", "step-00000007")]
    for restart, report in enumerate(reports):
        report.parent.mkdir(parents=True)
        begin(record.folder, HERE | {"SLURM_RESTART_COUNT": str(restart)})
        report.write_text("hang")
        slurm.job("RUNNING", restart)
        end(record.folder, 1, HERE | {"SLURM_RESTART_COUNT": str(restart)})
        assert record.status.reason == f"crashed with status 1 (hang: see {report})"
    life(record, slurm, 137, 2)
    assert record.status.reason.startswith("ended with status 137 3 times"), "the last life did not hang"


def test_crashes_without_a_new_checkpoint_use_the_budget_up(record: Record, slurm: Commands) -> None:
    life(record, slurm, 1, 0)
    life(record, slurm, 137, 1)
    assert (record.status.state, record.status.fruitless) == ("requeued", 2)
    assert life(record, slurm, 1, 2) == 1
    assert record.status.state == "failed"
    assert record.status.reason == "ended with status 1 3 times in a row without a new checkpoint (max_restarts=2)"
    assert requeues(slurm) == 2


def test_a_new_checkpoint_restores_the_budget(record: Record, slurm: Commands) -> None:
    for restart in range(9):
        life(record, slurm, 1, restart, saved=restart if restart % 3 == 2 else None)
        assert record.status.state == "requeued"
    assert requeues(slurm) == 9


def test_a_stop_that_saved_nothing_counts_as_a_crash(record: Record, slurm: Commands) -> None:
    for restart in range(3):
        life(record, slurm, 75, restart)
    assert record.status.state == "failed"
    assert [e["outcome"] for e in record.lives if e["event"] == "end"] == ["crashed", "crashed", "failed"]


def test_a_fine_tunes_checkpoints_count(record: Record, slurm: Commands) -> None:
    """They are in folders of its trainings."""
    for restart in range(4):
        life(record, slurm, 75, restart, saved=restart, part="seed-0/lr-0.001")
        assert (record.status.state, record.status.fruitless) == ("requeued", 0)


@pytest.mark.parametrize(("state", "restarts"), [("PENDING", 1), ("RUNNING", 1), ("CANCELLED", 0), ("TIMEOUT", 0)])
def test_what_slurm_has_taken_into_its_own_hands_is_left_to_it(
    record: Record, slurm: Commands, state: str, restarts: int
) -> None:
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    slurm.job(state, restarts)
    assert end(record.folder, 1, HERE) == 1
    assert requeues(slurm) == 0
    assert record.status.state == "running"


@pytest.mark.parametrize(("ends", "again"), [("2026-11-25T21:30:00", 0), (LIMIT, 1)])
def test_what_scancel_ends_is_not_requeued_and_what_the_time_limit_ends_is(
    record: Record, slurm: Commands, ends: str, again: int
) -> None:
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    saves(record, 10)
    slurm.job("COMPLETING", ends=ends)
    assert end(record.folder, 75, HERE) == 75
    assert requeues(slurm) == again


def test_an_orphans_end_changes_nothing(record: Record, slurm: Commands) -> None:
    slurm.job("RUNNING", 1)
    begin(record.folder, HERE)
    begin(record.folder, HERE | {"SLURM_RESTART_COUNT": "1"})
    before = record.status, record.lives
    for code in (0, 1, 2, 75):
        assert end(record.folder, code, HERE) == code
        assert (record.status, record.lives) == before
    assert requeues(slurm) == 0


def test_cancelled_is_neither_requeued_nor_a_failure(record: Record, slurm: Commands) -> None:
    (record.folder / "cancel").touch()
    assert life(record, slurm, 75, saved=1) == 0
    assert record.status.state == "cancelled"
    assert requeues(slurm) == 0


def test_a_requeue_that_slurm_refuses_is_written_down(record: Record, slurm: Commands) -> None:
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    script = (
        (slurm.bin / "scontrol")
        .read_text()
        .replace("/bin/cat <<", '[ "$1" = requeue ] && { echo no >&2; exit 1; }\n/bin/cat <<')
    )
    (slurm.bin / "scontrol").write_text(script)
    assert end(record.folder, 1, HERE) == 1
    assert record.status.state == "failed"
    assert "could not be requeued: scontrol requeue 77: no" in record.status.reason


def test_an_element_of_an_array_goes_by_its_own_name_and_books(tmp_path: Path, slurm: Commands) -> None:
    run = tmp_path / "sweep" / "seed-1"
    points = [{"index": 4, "words": ["--method", "gimp"]}]
    record = make(tmp_path, command="sweep", array=True, runs=[str(run)], points=points)
    environ = HERE | {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "0"}
    assert job_of(environ) == "70_0"
    slurm.job("RUNNING")
    begin(record.folder, environ)
    book = json.loads((run / "status.json").read_bytes())
    assert (book["index"], book["state"], book["attempts"], book["words"]) == (4, "running", 1, ["--method", "gimp"])
    end(record.folder, 137, environ)
    assert slurm.calls[-1] == "scontrol requeue 70_0"
    book = json.loads((run / "status.json").read_bytes())
    assert (book["state"], book["exit"], book["failures"]) == ("stopped", 137, 1)
    assert not Record(record.folder).lives

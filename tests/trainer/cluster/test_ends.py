"""The last status of a life, from what its ranks wrote and srun's number."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.cluster.desk import Commands
from tests.trainer.cluster.test_life import HERE, make, requeues, saves
from trainer.cluster import ends
from trainer.cluster.life import begin, end
from trainer.cluster.record import Record
from trainer.errors import write_end


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return make(tmp_path)


def wrote(record: Record, status: int, reason: str, rank: int, restart: int = 0) -> None:
    environ = {"MEDPAIR_JOB": str(record.folder), "RANK": str(rank), "SLURMD_NODENAME": f"n{rank + 1}"}
    element = {} if record.element is None else {"SLURM_ARRAY_TASK_ID": str(record.element)}
    write_end(status, reason, environ | element | {"SLURM_RESTART_COUNT": str(restart)})


@pytest.mark.parametrize("number", [2, 137, 143, 1])
def test_an_input_to_change_on_one_rank_fails_the_job_whatever_srun_reports(
    number: int, record: Record, slurm: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    wrote(record, 2, "error: data.path=/d: no such folder\n  mount it", 1)
    wrote(record, 1, "RuntimeError: Connection closed by peer", 0)
    assert end(record.folder, number, HERE) == 2
    assert (record.status.state, requeues(slurm)) == ("failed", 0)
    reason = "something to change in the input: rank 1 on n2: error: data.path=/d: no such folder mount it"
    assert record.status.reason == reason
    assert reason in capsys.readouterr().out
    assert (record.lives[-1]["status"], record.lives[-1]["words"]) == (2, reason)


def test_what_several_ranks_say_is_said_once(record: Record, slurm: Commands) -> None:
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    for rank in range(4):
        wrote(record, 2, "error: a" if rank else "error: b", rank)
    end(record.folder, 143, HERE)
    assert record.status.reason.endswith("rank 0 on n1: error: b; rank 1 on n2: error: a (and 2 more ranks)")


def test_a_stop_that_srun_reports_as_a_kill_is_a_stop(record: Record, slurm: Commands) -> None:
    """The first rank to leave with 75 makes srun end the one that writes its log a moment longer."""
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    saves(record, 31)
    wrote(record, 75, "stopped at step 31 (SIGTERM to rank 0)", 0)
    assert end(record.folder, 143, HERE) == 75
    assert record.status.reason == "stopped with status 75 (rank 0 on n1: stopped at step 31 (SIGTERM to rank 0))"


def test_a_kill_stays_a_kill_and_the_words_of_those_left_behind_are_kept(record: Record, slurm: Commands) -> None:
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    wrote(record, 1, "RuntimeError: Connection closed by peer", 0)
    assert end(record.folder, 137, HERE) == 137
    assert record.status.reason == "crashed with status 137 (rank 0 on n1: RuntimeError: Connection closed by peer)"


def test_only_this_lifes_words_count(record: Record, slurm: Commands) -> None:
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    wrote(record, 2, "error: of another life", 0, restart=5)
    assert end(record.folder, 137, HERE) == 137
    assert record.status.state == "requeued"


def test_the_next_life_says_who_ended_the_one_before(
    record: Record, slurm: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.job("RUNNING")
    begin(record.folder, HERE)
    wrote(record, 75, "stopped at step 31 (SIGTERM to rank 0)", 0)
    begin(
        record.folder, HERE | {"SLURM_RESTART_COUNT": "1"}
    )  # Slurm requeued it: the batch script did not come to its end
    said = "Slurm ended life 0 (a requeue, a preemption, a lost node): rank 0 on n1: stopped at step 31 (SIGTERM to rank 0)"
    assert record.lives[-1]["before"] == said
    assert f"job 77, restart 1: {said}" in capsys.readouterr().out
    slurm.job("RUNNING", 1)
    end(record.folder, 137, HERE | {"SLURM_RESTART_COUNT": "1"})
    begin(record.folder, HERE | {"SLURM_RESTART_COUNT": "2"})
    assert record.lives[-1]["before"] == "life 1 crashed with status 137"
    begin(record.folder, HERE | {"SLURM_RESTART_COUNT": "3"})
    assert record.lives[-1]["before"].endswith(": no rank left a word")


def test_elements_of_an_array_have_ends_of_their_own(tmp_path: Path) -> None:
    runs = [str(tmp_path / n) for n in ("a", "b")]
    first = make(tmp_path, array=True, runs=runs)
    second = Record(first.folder, 1)
    wrote(first, 2, "error: a", 0)
    assert [e.reason for e in ends.read(first, 0)] == ["error: a"]
    assert ends.read(second, 0) == []


def test_a_note_that_was_cut_off_is_no_note(record: Record) -> None:
    wrote(record, 2, "error: a", 0)
    [file] = (record.folder / "ends" / "0").iterdir()
    file.write_text(file.read_text()[:9])
    assert ends.read(record, 0) == []

"""Who says what ended a run: each rank what only it knows, rank 0 what all were told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.launching import launch
from trainer.errors import Stopped, TrainingError, UserError, everywhere, exit_status


def raising(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.fixture
def rank_1(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "SLURMD_NODENAME": "n2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MEDPAIR_JOB", raising=False)


@pytest.mark.usefixtures("rank_1")
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError(["a: not there", "b: empty"]), 2, "[rank 1 on n2] error: 2 problems:\n  a: not there\n  b: empty\n"),
        (TrainingError("it diverged"), 1, "[rank 1 on n2] error: it diverged\n"),
        (everywhere(UserError("a: not there")), 2, ""),
        (everywhere(TrainingError("it diverged")), 1, ""),
        (Stopped("saved"), 75, ""),
    ],
)
def test_another_rank_says_what_only_it_knows(
    error: Exception, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(raising(error)) == status
    assert capsys.readouterr().err == said


@pytest.mark.usefixtures("rank_1")
def test_a_bug_is_said_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(raising(KeyError("x"))) == 1
    said = capsys.readouterr().err
    assert said.startswith("[rank 1 on n2]\n")
    assert "KeyError: 'x'" in said


@pytest.mark.usefixtures("rank_1")
def test_a_task_of_a_job_writes_its_end_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDPAIR_JOB", str(tmp_path))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    assert exit_status(raising(everywhere(UserError("a: not there")))) == 2
    [file] = (tmp_path / "ends" / "3").iterdir()
    wrote = json.loads(file.read_text())
    assert (file.name, wrote) == (
        "rank-00001.json",
        {"rank": 1, "node": "n2", "status": 2, "reason": "error: a: not there"},
    )


@pytest.mark.usefixtures("rank_1")
def test_a_folder_that_cannot_be_written_changes_no_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDPAIR_JOB", str(tmp_path / "file"))
    assert exit_status(raising(UserError("a"))) == 2


@pytest.mark.ranks
@pytest.mark.slow
def test_a_problem_that_all_ranks_are_told_of_is_said_once(tmp_path: Path, demo_cohort: Path) -> None:
    """The folder is claimed by rank 0; the others hear of what is wrong with it."""
    (tmp_path / "file").touch()
    ended = launch(2, ["--method", "gimp", "steps=1", f"out={tmp_path / 'file' / 'run'}"], demo_cohort)
    assert ended.codes == [2, 2], ended.text
    assert [o.count("error:") for o in ended.outputs] == [1, 0], ended.text
    assert os.environ.get("RANK") is None

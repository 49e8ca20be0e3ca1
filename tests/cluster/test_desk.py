"""status, logs and cancel as a user of a real Slurm sees them, and the end of a job that crashes again and again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cluster.jobs import AT, RUN, STEPS, Desk, begun, main_log
from trainer.errors import EXIT_USER

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]


def field(text: str, name: str) -> str:
    [found] = re.findall(rf"^  {name} +(.*)$", text, re.M)
    return found


def test_a_run_is_watched_from_start_to_end(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "run"
    record = desk.submit("--processes-per-node", 2, *RUN, f"out={out}")
    with desk.held(record):
        code, said = desk.run("status", out)
        assert code == 0, said
        assert field(said, "job").startswith(f"{record.job}, running")
        assert re.fullmatch(r"\S+ on n\d", field(said, "since")), said
        assert field(said, "restarts") == "0"
        step = int(field(said, "step").split()[0])
        assert f"{step} of {STEPS}, loss" in field(said, "step")
        assert AT <= step < STEPS
        assert field(said, "speed").endswith("samples/s")
        assert "from now" in field(said, "ends")
        assert "saved and requeued before that" in field(said, "limit")
        code, said = desk.run("logs", out, "--rank", 1)
        assert code == 0
        assert all(line.startswith("[rank 1 n") for line in said.splitlines())
        assert "=== rank 1 of 2" in said
        # In the run's folder trains somebody already.
        code, said = desk.run(*RUN, f"out={out}")
        assert code == EXIT_USER
        assert f"job {record.job} is running for it" in said
        assert "is training in it; wait for it, or give another out=FOLDER" in said
    code, said = desk.run("logs", out, "--follow")  # until the job has ended
    assert code == 0
    heads = set(re.findall(r"^(\[rank \d n\d\])", said, re.M))
    assert len(heads) == 2, said
    assert f"step {STEPS}/{STEPS}" in said
    assert desk.ended(record) == "COMPLETED", desk.log(record)
    _, said = desk.run("status", out)
    assert field(said, "job") == f"{record.job}, done"
    assert f"{STEPS} of {STEPS}" in field(said, "step")
    code, said = desk.run("cancel", out)
    assert (code, "there is nothing to cancel" in said) == (EXIT_USER, True), said
    folder = {p.name for p in record.folder.iterdir()}
    assert {"job.json", "config.yaml", "status.json", "lives.jsonl", f"{record.job}_submission.sh"} <= folder
    assert record.about["versions"]["medpair"]


def test_a_job_that_crashes_again_and_again_ends(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "checkpoints").write_text("a file where a folder has to be\n")
    record = desk.submit("--max-restarts", 1, *RUN, "checkpoint.every=1", f"out={out}")
    assert desk.ended(record) == "FAILED", desk.log(record)
    assert begun(record) == 2
    assert record.status.state == "failed"
    reason = record.status.reason
    assert re.match(
        r"ended with status 1 \(rank 0 on n\d: error: the checkpoint at step 1 could not be written", reason
    )
    assert reason.endswith(" 2 times in a row without a new checkpoint (max_restarts=1)"), reason
    _, said = desk.run("status", out)
    assert field(said, "job") == f"{record.job}, failed ({record.status.reason})"
    assert "could not be written" in main_log(record)


def test_input_that_is_refused_late_is_not_tried_again(desk: Desk, tmp_path: Path) -> None:
    """What only the nodes can see: here a folder that became another run's after the submission."""
    out = tmp_path / "run"
    profile = tmp_path / "held.yaml"
    profile.write_text("sbatch: {hold: true}\n")
    record = desk.submit("--cluster", profile, *RUN, f"out={out}")
    (out / "config.json").write_text('{"config": {"seed": 7}, "versions": {}}\n')
    desk.cluster.command("scontrol", "release", record.job)
    assert desk.ended(record) == "FAILED", desk.log(record)
    assert begun(record) == 1
    assert record.status.state == "failed"
    reason = record.status.reason
    assert re.match(r"something to change in the input: rank 0 on n\d: error: .*another configuration", reason), reason
    assert "holds a run with another configuration" in main_log(record)


def test_a_waiting_job_is_shown_and_cancelled(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "run"
    profile = tmp_path / "held.yaml"
    profile.write_text("sbatch: {hold: true}\n")
    record = desk.submit("--cluster", profile, *RUN, f"out={out}")
    _, said = desk.run("status", out)
    assert field(said, "job").startswith(f"{record.job}, pending (JobHeld")
    code, said = desk.run(*RUN, f"out={out}")
    assert code == EXIT_USER
    assert f"job {record.job} is pending for it" in said
    assert f"cancel {out}` ends it" in said
    assert desk.run("cancel", out) == (0, f"job {record.job}: cancelled\n")
    assert desk.ended(record) == "CANCELLED"
    _, said = desk.run("status", out)
    assert field(said, "job") == f"{record.job}, cancelled"
    assert os.listdir(out) == ["slurm"]

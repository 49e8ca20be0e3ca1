"""A run that goes on with another number of nodes: by `cancel` and the same command again, or changed in the queue after a requeue."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.jobs import RUN, STEPS, Desk, last_step, main_log, series, told
from tests.cluster.slurm_cluster import until

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_two_nodes_then_one_then_four_see_the_same_samples(
    desk: Desk, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    lives = []
    for nodes, at in ((2, 10), (1, 25), (4, None)):
        record = desk.submit("--nodes", nodes, *RUN, "zero.stage=2", f"out={out}")
        lives.append(record)
        if at is not None:
            with desk.held(record, at, world=nodes) as ranks:
                code, said = desk.run("cancel", out)
                assert (code, "saves and ends" in said) == (0, True), said
                told(ranks)
                reached = last_step(out)
            assert desk.ended(record) == "COMPLETED", desk.log(record)
            assert record.status.state == "cancelled"
            saved = int((out / "checkpoints" / "latest").read_text().strip().removeprefix("step-"))
            assert reached < saved <= reached + 2  # held in a step, or between its end and its line in the log
    assert desk.ended(lives[-1]) == "COMPLETED", desk.log(lives[-1])
    assert lives[-1].status.state == "done"
    # Converted by itself, once a change; nothing of it is left.
    assert [main_log(r).count("converting it") for r in lives] == [0, 1, 1]
    assert not list((out / "checkpoints").glob(".*"))
    assert series(out, "step", "keys") == series(undisturbed[1], "step", "keys")
    assert len(series(out, "step")) == STEPS


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_requeued_job_goes_on_with_other_nodes(
    desk: Desk, undisturbed: dict[int, Path], tmp_path: Path, first: int, then: int
) -> None:
    record = desk.submit("--nodes", first, *RUN, "zero.stage=2", f"out={tmp_path / 'run'}")
    with desk.held(record, 20, world=first) as ranks:
        desk.cluster.command("scontrol", "requeue", record.job)
        told(ranks)
    until("the job waits", lambda: desk.cluster.state(record.job) == "PENDING", every=0.5)
    # Without NumTasks the old number of tasks would still ask for their nodes; a single number cannot rise above the old maximum.
    desk.cluster.command("scontrol", "update", f"JobId={record.job}", f"NumNodes={then}-{then}", f"NumTasks={then}")
    assert desk.ended(record) == "COMPLETED", desk.log(record)
    heads = [line.split(" on ")[0] for line in main_log(record).splitlines() if line.startswith("=== rank")]
    assert heads == [f"=== rank 0 of {first}", f"=== rank 0 of {then}"]
    assert main_log(record).count("converting it") == 1
    assert series(record.run, "step", "keys") == series(undisturbed[1], "step", "keys")
    assert len(series(record.run, "step")) == STEPS

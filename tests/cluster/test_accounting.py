"""status and submission where a database remembers the jobs that the controller has forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import accounting
from tests.cluster.conftest import unavailable
from tests.cluster.jobs import LIMIT, RUN, STEPS, Desk, series, told
from tests.cluster.slurm_cluster import Cluster, missing, until
from trainer.cluster import client

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory, demo_cohort: Path) -> Iterator[Desk]:
    """A login node of a cluster with accounting, whose controller forgets a job two seconds after its end."""
    unavailable(missing() or accounting.no_accounting())
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "b", nodes=1, books=accounting.start)
    yield Desk(cluster, demo_cohort)
    cluster.stop()


def forgotten(desk: Desk, job: str) -> bool:
    return "Invalid job id" in desk.cluster.command("sh", "-c", f"scontrol show job {job} 2>&1", check=False)


def test_a_job_that_scancel_ended_and_the_controller_forgot(remembered: Desk, tmp_path: Path) -> None:
    out = tmp_path / "run"
    record = remembered.submit(*RUN, f"out={out}")
    with remembered.held(record, world=1) as ranks:
        assert f"{record.job}, running" in remembered.run("status", out)[1]
        remembered.cluster.command("scancel", record.job)
        told(ranks)
    until("forgotten", lambda: forgotten(remembered, record.job), LIMIT, 1)
    # It saved, and did not go back into the queue; by its own books, which a killed life cannot close, it still runs.
    assert [e["outcome"] for e in record.lives if e["event"] == "end"] == ["stopped"], record.lives
    assert record.status.state == "running"
    with remembered.environment():
        info = client.job(record.job)
    assert info is not None
    assert (info.source, info.state, info.nodes) == ("accounting", "CANCELLED", "n1")
    assert all((info.started, info.ends))
    code, said = remembered.run("status", out)
    assert (code, f"{record.job}, cancelled" in said) == (0, True), said
    # Nobody has the folder any more: the same command goes on.
    again = remembered.submit(*RUN, f"out={out}")
    assert remembered.wait("the end", again, lambda: again.status.state == "done", 0.5)
    assert len(series(out, "step")) == STEPS

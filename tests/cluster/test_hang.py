"""A rank that stops in mid-run is named with its node; the job ends, is requeued, and completes as if nothing had happened."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cluster.jobs import AT, EVERY, RUN, WHAT, Desk, begun, last_step, main_log, series, went_on_from
from tests.cluster.slurm_cluster import kill

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_stopped_rank_is_named_and_the_job_starts_again(
    desk: Desk, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    """SIGSTOP: the process is there and does nothing, as on a node that has lost its memory or its file system."""
    record = desk.submit("--nodes", 2, *RUN, "zero.stage=1", "health.hang_floor=10", f"out={tmp_path / 'run'}")
    desk.reached(record, AT)
    stopped = desk.cluster.tasks(record.job)[1]
    kill(stopped, signal.SIGSTOP)
    node, reached = stopped.environ()["SLURMD_NODENAME"], last_step(record.run)
    assert desk.ended(record) == "COMPLETED", desk.log(record)
    (folder,) = (record.run / "hang").iterdir()
    report = (folder / "report.txt").read_text()
    assert f"missing: rank 1 on {node} (process {stopped.pid})" in report
    assert "its process does not answer; the system says T (stopped)" in report
    assert report in main_log(record), "in the log of the rank that found it"
    assert (folder / "rank-00000.txt").read_text().startswith("waits in ")
    assert begun(record) == 2, record.lives
    assert [e["outcome"] for e in record.lives if e["event"] == "end"] == ["crashed", "done"]
    [went_on] = went_on_from(record)
    assert 0 <= reached - went_on <= EVERY
    assert series(record.run, *WHAT) == series(undisturbed[1], *WHAT)  # bit-equal
    assert not list(record.run.glob(".beats-*"))

"""A link between nodes is cut: the job goes on elsewhere, and what still runs behind the cut cannot write into the run.

Nodes are network namespaces. Two jobs are hit by the same cut: one on two nodes, whose far rank waits for its peer, and one on the cut
node alone, which waits for nobody: it would train on, into the folder that the job's next life has taken.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import pytest

from tests.cluster.jobs import AT, EVERY, RUN, WHAT, Desk, begun, last_step, main_log, series, went_on_from
from tests.cluster.slurm_cluster import until
from trainer.cluster.record import Record
from trainer.state import fence

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_a_cut_link_ends_in_recovery_and_the_orphan_writes_nothing(
    linked: Desk, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    cluster = linked.cluster
    # The nodes have host names of their own, and yet they see this machine's files.
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"shared_folders: ['{tmp_path}']\n")
    placed = ("--cluster", profile, *RUN, "zero.stage=1")
    lone = linked.submit("--nodes", 1, *placed, f"out={tmp_path / 'lone'}")
    with contextlib.ExitStack() as still:
        orphan = still.enter_context(linked.held(lone, world=1))
        pair = linked.submit("--nodes", 2, *placed, f"out={tmp_path / 'pair'}")
        still.enter_context(linked.held(pair, world=2))
        for record in (pair, lone):
            assert cluster.job(record.job)["BatchHost"] == "n1"  # rank 0 of both is behind the cut
        reached = last_step(lone.run)
        cluster.cut("n1")
        until("later lives have the folders", lambda: taken(pair) and taken(lone), 300, 0.2)
    # The orphan moves again: it wants to write its next step, finds that it has been succeeded, and ends.
    until("the orphan ends", lambda: gone(orphan[0]), 120)
    assert "has taken over; this life writes no more" in main_log(lone)
    states = [linked.ended(record) for record in (pair, lone)]
    cluster.mend("n1")
    until("the node is back", lambda: "n1" in cluster.idle(), 120, 0.5)
    assert states == ["COMPLETED", "COMPLETED"], linked.log(pair) + linked.log(lone)
    for record in (pair, lone):
        assert record.status.state == "done"
        assert begun(record) == 2
        assert [e["status"] for e in record.lives if e["event"] == "end"][-1:] == [0]
        [went_on] = went_on_from(record)
        assert went_on == AT // EVERY * EVERY
    print(f"cut link: at step {reached}, went on from {went_on_from(lone)[0]}")
    whole = undisturbed[1]
    assert series(pair.run, *WHAT) == series(whole, *WHAT)  # bit-equal
    assert series(lone.run, "step", "keys") == series(whole, "step", "keys")


def taken(record: Record) -> bool:
    """By the job's second life."""
    holder = fence.holder(record.run)
    return holder is not None and holder.count == 1


def gone(p: psutil.Process) -> bool:
    return not p.is_running() or p.status() == psutil.STATUS_ZOMBIE

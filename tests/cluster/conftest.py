"""One real Slurm a worker; the words that submit a small run to it; the runs that others are compared with."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.jobs import LIMIT, RUN, Desk
from tests.cluster.slurm_cluster import Cluster, missing, no_links
from tests.conftest import of_all_workers
from tests.trainer.forking import Forks


def unavailable(why: str | None) -> None:
    """Skips; fails where the tests were told that they have to run (.ci/run does)."""
    if why and os.environ.get("MEDPAIR_SLURM") == "required":
        pytest.fail(f"MEDPAIR_SLURM=required, but {why}")
    if why:
        pytest.skip(why)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    unavailable(missing())
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "c")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def desk(cluster: Cluster, demo_cohort: Path) -> Desk:
    """A login node of the cluster."""
    return Desk(cluster, demo_cohort)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, demo_cohort: Path) -> Iterator[Desk]:
    """A login node of a cluster whose nodes have links that can be cut."""
    unavailable(missing())
    why = no_links()
    if why:
        pytest.skip(why)
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "l", nodes=3, links=True)
    yield Desk(cluster, demo_cohort)
    cluster.stop()


@pytest.fixture(scope="session")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs on two ranks of this machine that nothing happens to, by ZeRO stage; one set for all workers.

    That jobs on two nodes which nothing happens to are these, bit for bit, is asked in test_launch.py.
    """
    folder = of_all_workers(tmp_path_factory)
    folder.mkdir(exist_ok=True)
    runs = {stage: folder / f"zero-{stage}" for stage in (1, 2, 3)}
    with open(folder / "undisturbed.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stage, out in runs.items():
            if not (out / "weights.safetensors").exists():
                ended = forks.launch(2, [*RUN[1:], f"zero.stage={stage}", f"out={out}"], limit=LIMIT)
                assert ended.codes == [0, 0], ended.text
    return runs

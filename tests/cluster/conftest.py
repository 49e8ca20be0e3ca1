"""One real Slurm a session; the words that submit a small run to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.jobs import Desk
from tests.cluster.slurm_cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    why = missing()
    if why:
        pytest.skip(why)
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "c")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def desk(cluster: Cluster, demo_cohort: Path) -> Desk:
    """A login node of the cluster."""
    return Desk(cluster, demo_cohort)

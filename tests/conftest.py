"""Shared by all tests: no fixed paths, one demo cohort a session, single-threaded maths."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from tests.disk import no_waiting
from tests.trainer.forking import Forks

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# Drawn examples are the same in every run, none of them is timed, and nothing is kept: a red test stays red, a slow machine turns none.
settings.register_profile("medpair", deadline=None, derandomize=True, database=None)
settings.load_profile("medpair")
no_waiting()


ALONE = ("ranks", "slurm")
"""Markers that few files have, and whose tests run by themselves."""


@functools.cache
def says(path: Path, marker: str) -> bool:
    return f"mark.{marker}" in path.read_text()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m "ranks and ..."` or `-m slurm` a file that never says the marker is not loaded, which costs more than finding it out."""
    marker, _, more = str(config.option.markexpr).partition(" ")
    tests = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if marker in ALONE and " or " not in more and tests and not says(collection_path, marker) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in ALONE:
            if item.get_closest_marker(marker) and not says(item.path, marker):
                raise pytest.UsageError(f"{item.nodeid}: its file must say mark.{marker}, by which it is found")


def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what one worker makes and the others find; who writes in it holds a lock."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made"


@pytest.fixture(scope="session")
def demo_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in cohort, generated once for all workers of a session; each has a copy, in a cache folder of its own."""
    from shards.demo import ensure

    mine = tmp_path_factory.mktemp("cache") / "demo"
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return ensure(mine)
    made = ensure(of_all_workers(tmp_path_factory) / "demo")
    return Path(shutil.copytree(made, mine))


@pytest.fixture(scope="session")
def forks(demo_cohort: Path) -> Forks:
    """Launches real ranks without loading everything for each."""
    return Forks(demo_cohort)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real samples; tests that read it are skipped without it."""
    folder = os.environ.get("MEDPAIR_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDPAIR_REAL_DATA names no folder: the real samples are not part of the repository")
    return Path(folder).resolve()

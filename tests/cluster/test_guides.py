"""The docs' blocks on Slurm run as they stand on a real one; only the nodes are fewer, and have no GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.jobs import Desk
from tests.site.guides import commands, the

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]
GUIDE = "cluster.md: python launch/slurm.py"
EXAMPLE = "examples/slurm.md: medpair slurm logs"
SMALL = (
    "--recipe",
    "demo",
    "steps=100000",
    "data.workers=1",
    "log.tensorboard=false",
    "log.every=1",
    "stages.gene.epochs=0",
)


def test_the_blocks_run(desk: Desk, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    names = {
        "--nodes 4 --gpus-per-node 8": "--processes-per-node 1",
        "DIR": str(desk.cache),
        "RUN": out,
        "runs/queued": out,
    }
    submit, status, logs, cancel = (c.words[1:] for c in commands(the(GUIDE), names))
    assert [c.words[1:] for c in commands(the(EXAMPLE), names)] == [logs, cancel]
    record = desk.submit(*submit, *SMALL)
    desk.reached(record, 2)
    for asked, said in ((status, "running"), (cancel, "saves and ends"), (logs, "stopped at step")):
        code, text = desk.run(*asked)
        assert code == 0, text
        assert said in text
    assert desk.ended(record) == "COMPLETED", desk.log(record)

"""What only one rank knows ends the job as what it is; and ranks that nobody but srun has numbered find each other."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.cluster.jobs import FINAL, ROOT, TINY, Desk, begun, series
from tests.cluster.slurm_cluster import until

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(600)]


def test_data_that_only_one_node_lacks(desk: Desk, demo_cohort: Path, tmp_path: Path) -> None:
    """Rank 1 runs in another folder, where the relative path of the data leads nowhere: as on a node that has not mounted it."""
    data = os.path.relpath(demo_cohort, ROOT)
    # Deeper than this checkout can lie: from near the root the path's `..` would end at the root and lead to the data again.
    elsewhere = tmp_path.joinpath(*["elsewhere"] * 40)
    elsewhere.mkdir(parents=True)
    assert (ROOT / data).exists()
    assert not os.path.exists(elsewhere / data)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$SLURM_PROCID" = 1 ] && cd {elsewhere}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "mine.yaml").write_text(f"nodes: 2\npython: {python}\nenvironment: {{PYTHONPATH: '{ROOT}'}}\n")
    words = ["--cluster", tmp_path / "mine.yaml", "pretrain", *TINY, "steps=4", f"data.path={data}"]
    record = desk.submit(*words, f"out={tmp_path / 'run'}")
    assert desk.ended(record) == "FAILED", desk.log(record)
    status = json.loads((record.folder / "status.json").read_text())
    assert status["state"] == "failed", status
    assert status["reason"].startswith("something to change in the input: rank 1 on n"), status
    assert data in status["reason"], status
    assert begun(record) == 1, "trying again would not help"
    assert record.lives[-1]["status"] == 2
    rank_1 = (record.folder / f"{record.job}_1_log.out").read_text()
    assert "[rank 1 on n" in rank_1, rank_1
    assert status["reason"] in (record.folder / f"{record.job}_0_log.out").read_text()


def test_srun_alone_starts_one_run_of_two_ranks(desk: Desk, tmp_path: Path) -> None:
    command = f"{sys.executable} launch/pretrain.py {' '.join(TINY)} steps=4 out={tmp_path / 'run'}".replace(
        "''", "\\'\\'"
    )
    said = tmp_path / "said"
    env = ",".join(f"{k}={desk.env[k]}" for k in ("MEDPAIR_CACHE", "OMP_NUM_THREADS", "DS_ACCELERATOR"))
    job = desk.cluster.command(
        "sbatch", "--parsable", "-N2", "--ntasks-per-node=1", "-c2", "-D", str(ROOT), "-o", str(said),
        f"--export=ALL,{env}", "--wrap", f"srun {command}",
    ).strip()  # fmt: skip
    until("the end", lambda: desk.cluster.state(job) in FINAL, 300, 0.5)
    assert desk.cluster.state(job) == "COMPLETED", said.read_text()
    assert "2 ranks" in said.read_text()
    assert [s for (s,) in series(tmp_path / "run", "step")] == [1, 2, 3, 4]

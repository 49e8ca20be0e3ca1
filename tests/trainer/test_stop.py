"""SIGTERM and SIGUSR2, to one rank, to all, to the whole process group: one joint checkpoint, exit 75, the command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.ports import free_port
from tests.trainer.launching import ROOT, TINY, launch, rows, series

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]
RUN = [*TINY, "steps=10", "checkpoint.every=100", "data.workers=2"]
SIGNALS = [
    {"step": 2, "name": "SIGTERM", "rank": 1},
    {"step": 4, "name": "SIGUSR2"},
    {"step": 6, "name": "SIGTERM", "group": True},
    {"step": 8, "name": "SIGUSR2", "group": True},
]


def test_every_signal_stops_all_ranks_with_one_checkpoint(tmp_path: Path, demo_cohort: Path) -> None:
    whole = launch(2, [*RUN, f"out={tmp_path / 'whole'}"], demo_cohort)
    assert whole.codes == [0, 0], whole.text
    out = tmp_path / "cut"
    for fault in SIGNALS:
        stopped = launch(2, [*RUN, f"out={out}"], demo_cohort, {"signal": fault})
        assert stopped.codes == [75, 75], stopped.text
        assert "The same command goes on" in stopped.outputs[0]
        # Asked for after a step, so it is agreed on in the next one.
        saved = fault["step"] + 1
        assert (out / "checkpoints" / "latest").read_text().strip() == f"step-{saved:08d}"
        assert rows(out)[-1]["step"] == saved
        assert json.loads((out / "ended.json").read_bytes())["state"] == "stopped"
    done = launch(2, [*RUN, f"out={out}"], demo_cohort)
    assert done.codes == [0, 0], done.text
    assert not (out / "ended.json").exists()
    assert series(out, "step", "loss", "keys") == series(tmp_path / "whole", "step", "loss", "keys")


def test_the_deepspeed_launcher_passes_the_status_on(tmp_path: Path, demo_cohort: Path) -> None:
    """The real launcher, two ranks: a rank asked to stop makes the command exit 75, and nothing is left running."""
    launcher = [str(Path(sys.executable).parent / "deepspeed"), "--num_gpus", "2", "--master_port", str(free_port())]
    env = {
        **os.environ,
        "MEDPAIR_CACHE": str(demo_cohort.parent),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    words = [*RUN, "steps=100000", f"out={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [*launcher, "launch/pretrain.py", *words], cwd=ROOT, env=env, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = []
    try:
        assert process.stdout is not None
        for line in process.stdout:  # returns as soon as a line is there: no waiting by the clock
            said.append(line)
            if line.startswith("step 10/"):
                ranks = [
                    p for p in psutil.Process(process.pid).children(recursive=True) if "--local_rank=1" in p.cmdline()
                ]
                assert len(ranks) == 1, ranks
                ranks[0].send_signal(signal.SIGUSR2)
        assert process.wait(timeout=120) == 75, "".join(said[-40:])
    finally:
        left = [p for p in psutil.process_iter(["pid"]) if _session(p.pid) == process.pid]
        for p in left:
            p.kill()
    assert not left, left
    assert (tmp_path / "run" / "checkpoints" / "latest").exists()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, ProcessLookupError):
        return None

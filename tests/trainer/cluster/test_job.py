"""What a task does before it becomes the program: its rank, its signals, and whether there is still anything to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.trainer.cluster.desk import Commands
from trainer.errors import EXIT_STOPPED

PROGRAM = """
import json, os, signal, sys
blocked = sorted(int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, []))
print(json.dumps({"words": sys.argv[1:], "rank": os.environ["RANK"], "world": os.environ["WORLD_SIZE"], "blocked": blocked}))
"""
TASK = {
    "SLURM_JOB_ID": "77", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_NTASKS": "2",
    "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "1(x2)", "SLURMD_NODENAME": "n2", "SLURM_RESTART_COUNT": "3",
}  # fmt: skip


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM)
    words = (str(folder / "program.py"), "out=a b")
    code = f"from trainer.cluster.job import Task; Task({words!r}, {str(folder)!r})()"
    root = str(Path(__file__).parents[3])
    return subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, env={**os.environ, **TASK, "PYTHONPATH": root}
    )


def test_a_task_becomes_the_program_with_its_rank_and_signals_held_back(tmp_path: Path, slurm: Commands) -> None:
    slurm.prints("scontrol", "localhost\nn2")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    head, said = done.stdout.splitlines()
    assert head.startswith("=== rank 1 of 2 on n2, restart 3, master localhost:")
    held = sorted(int(s) for s in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT))
    assert json.loads(said) == {"words": ["out=a b"], "rank": "1", "world": "2", "blocked": held}


def test_what_was_cancelled_before_it_began_does_not_begin(tmp_path: Path, slurm: Commands) -> None:
    (tmp_path / "cancel").touch()
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_STOPPED, "")

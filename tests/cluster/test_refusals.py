"""What a real Slurm would refuse, or would let fail hours later: refused before submission, with the fix. And what --dry-run shows."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import pytest

from tests.cluster.jobs import RUN, Desk
from trainer.errors import EXIT_USER

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
CASES = {
    "no such partition": (["--partition", "mian"], "--partition mian: no such partition; did you mean 'main'?"),
    "nothing like it": (["--partition", "xyz"], "--partition xyz: no such partition; there are "),
    "more nodes": (["--nodes", "8"], "--nodes 8: partition main gives at most 4"),
    "more GPUs": (["--partition", "gpu", "--gpus-per-node", "4"],
                  "--gpus-per-node 4: nodes of partition gpu have at most 2"),
    "no GPUs": (["--gpus-per-node", "2"], "for processes without a GPU give --gpus-per-node 0 --processes-per-node N"),
    "more cores": (["--processes-per-node", "4", "--cpus-per-process", "3"],
                   "4 processes a node x 3 cores each (--cpus-per-process) = 12: nodes of partition main have at most 8"),
    "longer than the partition": (["--time", "3:00:00"], "--time 3:00:00: partition main allows 120 minutes"),
    "all warning": (["--time", "2", "--warning", "120"], "--time 2: not longer than the warning of 120 s"),
    "no time": (["--time", "soon"], "--time soon: write minutes, hours:minutes:seconds, or days-hours:minutes:seconds"),
    "another machine's nodes": (["--partition", "elsewhere"], "on a file system of this machine"),
}  # fmt: skip


def refused(desk: Desk, *words: object, **environ: str) -> str:
    code, said = desk.run(*words, **environ)
    assert code == EXIT_USER, said
    return said


@pytest.mark.parametrize("name", CASES)
def test_sizes_and_places(name: str, desk: Desk, tmp_path: Path) -> None:
    words, message = CASES[name]
    said = refused(desk, *words, *RUN, f"out={tmp_path / 'run'}")
    assert message in said
    assert not (tmp_path / "run").exists()


def test_all_problems_are_said_at_once(desk: Desk, tmp_path: Path) -> None:
    said = refused(desk, "--nodes", 8, "--gpus-per-node", 1, "--time", "9:00:00", *RUN, f"out={tmp_path / 'run'}")
    assert said.startswith("error: 3 problems:\n"), said


def test_slurm_is_not_here(desk: Desk, tmp_path: Path) -> None:
    said = refused(desk, *RUN, f"out={tmp_path / 'run'}", PATH=str(tmp_path))
    assert "Slurm is not here: sbatch, srun, scontrol, squeue, sinfo, scancel not on PATH" in said
    assert "deepspeed launch/pretrain.py" in said


def test_the_controller_does_not_answer(desk: Desk, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    text = Path(desk.env["SLURM_CONF"]).read_text()
    conf.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=9", text) + "MessageTimeout=1\n")
    said = refused(desk, *RUN, f"out={tmp_path / 'run'}", SLURM_CONF=str(conf))
    assert re.search(r"Unable to contact slurm controller|no answer in", said), said
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused(desk, *RUN, f"out={tmp_path / 'file' / 'run'}")
    assert f"out={tmp_path / 'file' / 'run'}: cannot be written (Not a directory); give another out=FOLDER" in said


def test_a_folder_that_somebody_trains_in(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with open(out / ".lock", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        said = refused(desk, *RUN, f"out={out}")
    assert f"out={out}: another process is training in it; wait for it, or give another out=FOLDER" in said


def test_a_profile_of_ones_own(desk: Desk, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("partion: main\nnodes: 2\nwarning: soon\n")
    said = refused(desk, "--cluster", profile, *RUN, f"out={tmp_path / 'run'}")
    assert "partion" in said
    assert "partition" in said
    assert "warning" in said
    assert "did you mean 'gpu-8'?" in refused(desk, "--cluster", "gpu8", *RUN, f"out={tmp_path / 'run'}")


def test_what_the_command_refuses(desk: Desk, tmp_path: Path) -> None:
    """Before the queue, not after it; for pre-training, fine-tuning and sweeps."""
    out = f"out={tmp_path / 'run'}"
    assert "did you mean" in refused(desk, *RUN, "optim.lrr=1", out)
    assert "global_batch" in refused(desk, "--nodes", 3, *RUN, out)
    finetune = ("finetune", "--task", "demo_subtype", "--method", "gimp", "--init")
    assert str(tmp_path / "nowhere") in refused(desk, *finetune, tmp_path / "nowhere", out)
    assert "give out=FOLDER" in refused(desk, *finetune, tmp_path / "nowhere")
    assert "no such file" in refused(desk, "sweep", tmp_path / "none.yaml", "--out", tmp_path / "sweep")


def test_a_dry_run_shows_script_and_configuration(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sizes = ("--nodes", 2, "--processes-per-node", 2, "--account", "lab", "--exclude", "n4")
    code, said = desk.run(*sizes, "--dry-run", *RUN, f"out={out}")
    assert code == 0, said
    script, _, config = said.partition("# ---- what it runs")
    for line in (
        "--nodes=2",
        "--ntasks-per-node=2",
        "--cpus-per-task=2",
        "--account=lab",
        "--exclude=n4",
        "--signal=USR2@120",
        "--requeue",
    ):
        assert f"#SBATCH {line}\n" in script, script
    assert "trainer.cluster.life begin" in script
    assert "--kill-on-bad-exit=1" in script
    assert "global_batch: 8\n" in config
    assert "state of a rank under ZeRO 1" in config
    assert not out.exists()
    # Without Slurm too: it is for reading.
    assert desk.run("--nodes", 2, "--dry-run", *RUN, f"out={out}", PATH=str(tmp_path))[0] == 0

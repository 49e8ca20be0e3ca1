"""Torch's variables from Slurm's: the one place where ranks find each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.trainer.launching import ROOT, TINY, rows
from trainer.errors import UserError
from trainer.rendezvous import FIRST_PORT, PORTS, TORCH, port, ranks_from, rendezvous, tasks_per_node
from trainer.runtime import device_index

# Rank 5 of 2 nodes x 4 tasks, as srun of Slurm 22.05 sets them.
TASK = {
    "SLURM_JOB_ID": "141301", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "8",
    "SLURM_JOB_NODELIST": "n[3,7]", "SLURM_TASKS_PER_NODE": "4(x2)",
}  # fmt: skip


def found(**more: str) -> dict[str, str]:
    names = {"n[3,7]": ["n3", "n7"], "n7": ["n7"]}
    return rendezvous(TASK | more, names.__getitem__, lambda name: f"{name}.local")


def test_a_task_of_two_nodes() -> None:
    assert found() == {
        "MASTER_ADDR": "n3.local", "MASTER_PORT": str(port(141301, 0)), "RANK": "5", "WORLD_SIZE": "8",
        "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    }  # fmt: skip


def test_the_steps_own_variables_go_before_the_jobs() -> None:
    step = found(
        SLURM_STEP_NODELIST="n7", SLURM_STEP_NUM_TASKS="2", SLURM_STEP_TASKS_PER_NODE="2", SLURM_NODEID="0", SLURM_PROCID="1"
    )  # fmt: skip
    assert (step["MASTER_ADDR"], step["WORLD_SIZE"], step["LOCAL_WORLD_SIZE"]) == ("n7.local", "2", "2")


def test_two_steps_at_the_same_time_do_not_meet() -> None:
    ports = {found(SLURM_STEP_ID=str(step))["MASTER_PORT"] for step in range(50)}
    assert len(ports) == 50
    assert found(SLURM_STEP_ID="0")["MASTER_PORT"] == found()["MASTER_PORT"]


def test_the_number_of_tasks_is_the_steps_or_the_jobs() -> None:
    step = {k: v for k, v in TASK.items() if k != "SLURM_NTASKS"} | {"SLURM_STEP_NUM_TASKS": "8"}
    assert rendezvous(step, lambda _: ["n3", "n7"], str)["WORLD_SIZE"] == "8"
    with pytest.raises(UserError, match=r"SLURM_NODEID=1, and SLURM_TASKS_PER_NODE=4 has 1 nodes"):
        found(SLURM_TASKS_PER_NODE="4")


STEP = TASK | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"}


def test_a_process_alone_and_one_of_a_launcher_are_left_as_they_are() -> None:
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "29500", "LOCAL_RANK": "1"}
    assert ranks_from({}) == {}
    assert ranks_from({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == {}
    assert ranks_from(STEP | torchrun) == {}
    assert ranks_from({"RANK": "0", "WORLD_SIZE": "1"}) == {}


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, r"this job has 2 tasks \(SLURM_NTASKS\), .*launch/slurm\.py"),
        ({"SLURM_NPROCS": "2"}, r"this job has 2 tasks .*for a single rank, unset SLURM_NTASKS, SLURM_NPROCS"),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, r"not a task .*SLURM_PROCID.*launch/slurm\.py"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, r"OMPI_COMM_WORLD_SIZE=4 processes, and no RANK .*torchrun"),
        ({"PMI_SIZE": "4"}, "PMI_SIZE=4 processes"),
        ({"RANK": "1"}, "RANK set and WORLD_SIZE, MASTER_ADDR, MASTER_PORT not: .*deepspeed"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE set and RANK, MASTER_ADDR, MASTER_PORT not"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}, "MASTER_ADDR not"),
    ],
)
def test_one_of_several_never_trains_alone(environ: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ranks_from(environ)


@pytest.mark.parametrize(("local_rank", "visible", "index"), [(0, 8, 0), (7, 8, 7), (0, 1, 0), (1, 1, 0), (3, 1, 0)])
def test_the_device_of_a_rank(local_rank: int, visible: int, index: int) -> None:
    """By counts alone: no GPU is here."""
    assert device_index(local_rank, visible) == index


def test_more_ranks_than_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(UserError, match=r"local rank 2: this process sees 2 devices \(CUDA_VISIBLE_DEVICES=4,5\)"):
        device_index(2, 2)


@pytest.mark.ranks
@pytest.mark.slow
def test_two_tasks_of_a_step_train_one_model_without_a_launcher(demo_cohort: Path, tmp_path: Path) -> None:
    """What `srun -n2 python launch/pretrain.py` gives: Slurm's variables and no RANK."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho localhost\n")
    (tmp_path / "scontrol").chmod(0o755)
    step = {
        "SLURM_JOB_ID": str(free_port() * 100), "SLURM_NTASKS": "2", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "localhost", "SLURM_TASKS_PER_NODE": "2",
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "MEDPAIR_CACHE": str(demo_cohort.parent), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environ = {k: v for k, v in os.environ.items() if k not in TORCH} | step
    command = [sys.executable, "-W", "ignore", "launch/pretrain.py", *TINY, "steps=2", f"out={tmp_path / 'run'}"]
    tasks = [
        subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environ | {"SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)},
        )
        for r in range(2)
    ]  # fmt: skip
    try:
        said = [p.communicate(timeout=200)[0] for p in tasks]
    finally:
        for p in tasks:
            p.kill()
            p.wait()
    assert [p.returncode for p in tasks] == [0, 0], said
    assert "2 ranks" in said[0]
    assert len(rows(tmp_path / "run")) == 2


def test_threads_follow_the_cores_unless_they_are_given() -> None:
    assert found(SLURM_CPUS_PER_TASK="6")["OMP_NUM_THREADS"] == "6"
    assert "OMP_NUM_THREADS" not in found(SLURM_CPUS_PER_TASK="6", OMP_NUM_THREADS="1")


def test_every_life_has_a_port_of_its_own() -> None:
    lives = [port(job, restart) for job in range(1000, 1100) for restart in range(4)]
    assert all(FIRST_PORT <= p < FIRST_PORT + PORTS <= 32_768 for p in lives)
    assert len(set(lives)) == len(lives)


@pytest.mark.parametrize(("text", "counts"), [("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("1,3(x2)", [1, 3, 3])])
def test_tasks_per_node(text: str, counts: list[int]) -> None:
    assert tasks_per_node(text) == counts


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(UserError, match=r"not a task .*SLURM_PROCID, SLURM_LOCALID.*launch/slurm\.py"):
        rendezvous({"SLURM_JOB_ID": "1", "SLURM_NODEID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "n1"})
    with pytest.raises(UserError, match="is not understood"):
        tasks_per_node("many")

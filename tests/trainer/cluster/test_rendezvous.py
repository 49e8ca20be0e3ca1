"""Torch's variables from Slurm's: the one place where ranks find each other."""

from __future__ import annotations

import pytest

from trainer.cluster.rendezvous import FIRST_PORT, PORTS, port, rendezvous, tasks_per_node
from trainer.errors import UserError

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

"""How the tasks of a job step find each other: torch's variables, derived from Slurm's alone. No hostfile, no ssh."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Mapping

from trainer.errors import UserError

NEEDED = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
TORCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# How other launchers say how many processes they started.
COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")
START = "start it with launch/slurm.py, with `srun python launch/...` (one task a rank), with `deepspeed` or with `torchrun`"
# Below Linux's ephemeral ports (32768 and up), above the registered ones that clusters use for services.
FIRST_PORT, PORTS = 12_000, 20_000


def hostnames(nodelist: str) -> list[str]:
    """`n[1-3,7]` as names, by Slurm itself.

    Raises:
        UserError: it does not answer.
    """
    words = ["scontrol", "show", "hostnames", nodelist]
    try:
        return subprocess.run(words, text=True, capture_output=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as e:
        raise UserError(f"`{' '.join(words)}` names no nodes ({e}): {START}") from e


def address(name: str) -> str:
    """A name that resolves, or the address that Slurm itself uses for that node."""
    try:
        socket.getaddrinfo(name, None)
        return name
    except OSError:
        shown = subprocess.run(["scontrol", "-o", "show", "node", name], text=True, capture_output=True).stdout
        found = re.search(r"\bNodeAddr=(\S+)", shown)
        return found.group(1) if found else name


def tasks_per_node(text: str) -> list[int]:
    """`2(x3),1` as [2, 2, 2, 1]."""
    out: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not found:
            raise UserError(f"SLURM_TASKS_PER_NODE={text} is not understood: start the job with launch/slurm.py")
        out += [int(found.group(1))] * int(found.group(2) or 1)
    return out


def port(job: int, restart: int, step: int = 0) -> int:
    """One for each life of each job, so that an orphan of an earlier life cannot join a later one, and for each step at the same time."""
    return FIRST_PORT + (job * 131 + restart * 17 + step * 7919) % PORTS


def ranks_from(environ: Mapping[str, str]) -> dict[str, str]:
    """What is missing of torch's variables: from Slurm's in a task of a step of several; nothing for a process alone.

    Raises:
        UserError: several processes, and nothing says which of them this is; a part of torch's variables.
    """
    given = [k for k in TORCH if k in environ]
    if "RANK" in given or "WORLD_SIZE" in given:
        world = environ.get("WORLD_SIZE", "")
        missing = [k for k in TORCH if k not in environ and not (world == "1" and k.startswith("MASTER"))]
        if missing:
            raise UserError(f"{', '.join(given)} set and {', '.join(missing)} not: {START}")
        return {}
    tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS") or environ.get("SLURM_NPROCS") or "1"
    if tasks != "1":
        if not any(k in environ for k in ("SLURM_STEP_ID", "SLURM_STEPID")):
            raise UserError(
                f"this job has {tasks} tasks (SLURM_NTASKS), and this process is none of them: it would train alone. "
                f"Put srun in front, or {START}; for a single rank, unset SLURM_NTASKS, SLURM_NPROCS and SLURM_STEP_NUM_TASKS"
            )
        return rendezvous(environ)
    for name in COUNTS:
        if environ.get(name, "1") != "1":
            raise UserError(f"{name}={environ[name]} processes, and no RANK for any: each would train alone; {START}")
    return {}


def rendezvous(
    environ: Mapping[str, str],
    names: Callable[[str], list[str]] = hostnames,
    reach: Callable[[str], str] = address,
) -> dict[str, str]:
    """MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE of a task started by srun.

    Rank 0 is on the step's first node, so that is the master. The step's own variables go before the job's: a step may
    be smaller than its job.

    Raises:
        UserError: not a task of a job step.
    """
    missing = [k for k in NEEDED if k not in environ]
    tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS")
    missing += [] if tasks else ["SLURM_NTASKS"]
    nodelist = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    if missing or not nodelist:
        raise UserError(f"not a task of a Slurm job step ({', '.join(missing) or 'no node list'}): use launch/slurm.py")
    assert tasks is not None
    world, node = int(tasks), int(environ["SLURM_NODEID"])
    shares = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE") or str(world)
    share = tasks_per_node(shares)
    if node >= len(share):
        raise UserError(f"SLURM_NODEID={node}, and SLURM_TASKS_PER_NODE={shares} has {len(share)} nodes: {START}")
    step = environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID") or "0"
    life = int(environ["SLURM_JOB_ID"]), int(environ.get("SLURM_RESTART_COUNT", "0"))
    out = {
        "MASTER_ADDR": reach(names(nodelist)[0]),
        "MASTER_PORT": str(port(*life, int(step) if step.isdigit() else 0)),
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(share[node]),
    }
    if "OMP_NUM_THREADS" not in environ and "SLURM_CPUS_PER_TASK" in environ:
        out["OMP_NUM_THREADS"] = environ["SLURM_CPUS_PER_TASK"]
    return out

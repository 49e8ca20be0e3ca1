"""How the tasks of a job step find each other: torch's variables, derived from Slurm's alone. No hostfile, no ssh."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Mapping

from trainer.errors import UserError

NEEDED = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS")
# Below Linux's ephemeral ports (32768 and up), above the registered ones that clusters use for services.
FIRST_PORT, PORTS = 12_000, 20_000


def hostnames(nodelist: str) -> list[str]:
    """`n[1-3,7]` as names, by Slurm itself."""
    done = subprocess.run(["scontrol", "show", "hostnames", nodelist], text=True, capture_output=True, check=True)
    return done.stdout.split()


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


def port(job: int, restart: int) -> int:
    """One for each life of each job, so that an orphan of an earlier life cannot join a later one."""
    return FIRST_PORT + (job * 131 + restart * 17) % PORTS


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
    nodelist = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    if missing or not nodelist:
        raise UserError(f"not a task of a Slurm job step ({', '.join(missing) or 'no node list'}): use launch/slurm.py")
    world = int(environ.get("SLURM_STEP_NUM_TASKS") or environ["SLURM_NTASKS"])
    shares = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE") or str(world)
    out = {
        "MASTER_ADDR": reach(names(nodelist)[0]),
        "MASTER_PORT": str(port(int(environ["SLURM_JOB_ID"]), int(environ.get("SLURM_RESTART_COUNT", "0")))),
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks_per_node(shares)[int(environ["SLURM_NODEID"])]),
    }
    if "OMP_NUM_THREADS" not in environ and "SLURM_CPUS_PER_TASK" in environ:
        out["OMP_NUM_THREADS"] = environ["SLURM_CPUS_PER_TASK"]
    return out

"""The Slurm commands, as data. Everything the rest of this package knows of Slurm it asks here."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainer.errors import UserError

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED", "RESV_DEL_HOLD"}
ACTIVE = WAITING | {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
NEEDED = ("sbatch", "srun", "scontrol", "squeue", "sinfo", "scancel")


def absent() -> list[str]:
    """Slurm commands that are not on the PATH."""
    return [c for c in NEEDED if not shutil.which(c)]


def ask(*words: str, limit: float = 60) -> str:
    """Output of a Slurm command.

    Raises:
        UserError: not installed, no answer, or an error of its own.
    """
    try:
        done = subprocess.run(words, text=True, capture_output=True, timeout=limit)
    except FileNotFoundError as e:
        raise UserError(f"{words[0]}: not on PATH; run this on a login node of the cluster") from e
    except subprocess.TimeoutExpired as e:
        raise UserError(
            f"{' '.join(words)}: no answer in {limit:.0f} s; is the Slurm controller up (scontrol ping)?"
        ) from e
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        if "configuration source" in said:
            said = "no slurm.conf: this machine belongs to no cluster; run this on a login node, or set SLURM_CONF"
        raise UserError(f"{' '.join(words)}: {said}")
    return done.stdout


def records(text: str) -> list[dict[str, str]]:
    """The lines of `scontrol -o show ...`: KEY=VALUE words, values without spaces."""
    return [
        dict(re.findall(r"(?:^|(?<=\s))([A-Za-z][\w/:]*)=(\S*)", line)) for line in text.splitlines() if "=" in line
    ]


@dataclass(frozen=True)
class JobInfo:
    """A job as the controller, or else the accounting, has it."""

    job: str
    state: str
    reason: str = ""
    nodes: str = ""
    restarts: int = 0
    started: str = ""
    ends: str = ""
    source: str = "controller"
    early: bool = False
    """Being ended before its time limit: by scancel, or by Slurm itself, which will requeue it. The state does not tell (COMPLETING)."""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def job(number: str) -> JobInfo | None:
    """What is known of a job; None when neither controller nor accounting remembers it."""
    return _of_controller(number) or _of_accounting(number)


def _of_controller(number: str) -> JobInfo | None:
    """The controller forgets a job some minutes after its end (MinJobAge)."""
    try:
        found = records(ask("scontrol", "-o", "show", "job", number))
    except UserError as e:
        if "Invalid job id" in str(e):
            return None
        raise
    if not found:
        return None
    # Of an array whose elements have split off, all lines come: the element asked for, or any that is active.
    rows = [r for r in found if _name(r) == number] or sorted(found, key=lambda r: r.get("JobState", "") not in ACTIVE)
    r = rows[0]
    reason, nodes = (_empty(r.get(k, "")) for k in ("Reason", "NodeList"))
    started, ends = (_empty(r.get(k, "")) for k in ("StartTime", "EndTime"))
    early = r["JobState"] == "COMPLETING" and _early(started, ends, r.get("TimeLimit", ""))
    return JobInfo(number, r["JobState"], reason, nodes, int(r.get("Restarts", "0")), started, ends, early=early)


def _early(started: str, ended: str, limit: str) -> bool:
    try:
        lasted = datetime.fromisoformat(ended) - datetime.fromisoformat(started)
        return lasted < timedelta(minutes=minutes(limit))
    except (ValueError, UserError):
        return limit == "UNLIMITED"


def _name(r: dict[str, str]) -> str:
    return f"{r['ArrayJobId']}_{r['ArrayTaskId']}" if "ArrayTaskId" in r else r.get("JobId", "")


def _empty(value: str) -> str:
    return "" if value in ("(null)", "None", "Unknown", "N/A") else value


def _of_accounting(number: str) -> JobInfo | None:
    if not shutil.which("sacct"):
        return None
    # How often it was restarted our own books know; sacct of many versions in use has no field for it.
    words = ["sacct", "-n", "-X", "-P", "-j", number, "-o", "State,NodeList,Start,End"]
    try:
        done = subprocess.run(words, text=True, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return None  # no accounting on this cluster, or nothing of this job in it
    state, nodes, started, ends = (*lines[-1].split("|"), "", "", "", "")[:4]
    return JobInfo(number, state.split()[0], "", _empty(nodes), 0, _empty(started), _empty(ends), "accounting")


@dataclass(frozen=True)
class Node:
    name: str
    host: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Partition:
    name: str
    default: bool
    nodes: int
    most_nodes: int | None
    most_minutes: int | None


def partitions() -> dict[str, Partition]:
    """All partitions by name."""
    out = {}
    for r in records(ask("scontrol", "-o", "show", "partition")):
        name, most = r["PartitionName"], r.get("MaxNodes", "")
        limit = None if r.get("MaxTime", "UNLIMITED") == "UNLIMITED" else minutes(r["MaxTime"])
        total = int(r.get("TotalNodes", "0"))
        out[name] = Partition(name, r.get("Default") == "YES", total, int(most) if most.isdigit() else None, limit)
    return out


def nodes(partition: str) -> list[Node]:
    """The nodes of a partition, with what they are configured to have."""
    out = []
    for r in records(ask("scontrol", "-o", "show", "node")):
        if partition not in r.get("Partitions", "").split(","):
            continue
        gpus = sum(int(n) for n in re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", r.get("Gres", "")))
        out.append(Node(r["NodeName"], r.get("NodeHostName", r["NodeName"]), int(r.get("CPUTot", "0")), gpus))
    return out


def minutes(text: str) -> int:
    """A Slurm time (`90`, `1:30:00`, `2-12`, `2-12:00:00`, `5:30` for minutes and seconds) in whole minutes, rounded up.

    Raises:
        UserError: not one of Slurm's forms.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if not found:
        raise UserError(f"--time {text}: write minutes, hours:minutes:seconds, or days-hours:minutes:seconds")
    days, *rest = found.groups()
    a, b, c = (int(x or 0) for x in rest)
    if days is not None:
        seconds = int(days) * 86400 + a * 3600 + b * 60 + c
    elif rest[2] is not None:
        seconds = a * 3600 + b * 60 + c
    else:
        seconds = a * 60 + b
    return -(-seconds // 60)

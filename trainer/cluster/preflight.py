"""What can be refused before a job is in the queue: every problem at once, each with its fix."""

from __future__ import annotations

import contextlib
import difflib
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.cluster import client
from trainer.cluster.profile import Profile
from trainer.cluster.record import folders, records
from trainer.errors import UserError

# File systems that one node has for itself. What is not here (NFS, Lustre, GPFS, BeeGFS, CephFS, WekaFS, FUSE...) may be shared.
LOCAL = {
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "tmpfs",
    "ramfs",
    "devtmpfs",
    "overlay",
    "vfat",
    "rootfs",
}


def check(profile: Profile, out: Path, runs: Sequence[Path]) -> None:
    """Raises: UserError: everything that speaks against submitting this job; nothing is left of it then."""
    missing = client.absent()
    if missing:
        raise UserError(
            f"Slurm is not here: {', '.join(missing)} not on PATH. Run this on a login node of the cluster "
            "(`module load slurm` on some); without Slurm: `deepspeed launch/pretrain.py ...`"
        )
    new = [p for p in (out, *out.parents) if not p.exists()]
    try:
        problems = _problems(profile, out, runs)
        if problems:
            raise UserError(problems)
    except UserError:
        for folder in new:
            with contextlib.suppress(OSError):  # somebody else's by now, or never made
                folder.rmdir()
        raise


def _problems(profile: Profile, out: Path, runs: Sequence[Path]) -> list[str]:
    problems = list(folder_problems(out))
    partition, found = _partition(profile)
    problems += found
    nodes = client.nodes(partition.name) if partition else []
    if partition:
        problems += size_problems(profile, partition, nodes)
    problems += shared_problems(profile, out, nodes, mounts())
    for run in dict.fromkeys([out, *runs]):
        problems += active_problems(run)
    return problems


def _partition(profile: Profile) -> tuple[client.Partition | None, list[str]]:
    known = client.partitions()
    if profile.partition is None:
        default = [p for p in known.values() if p.default]
        if default:
            return default[0], []
        return None, [f"--partition: this cluster has no default; give one of {', '.join(known)}"]
    if profile.partition in known:
        return known[profile.partition], []
    near = difflib.get_close_matches(profile.partition, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
    return None, [f"--partition {profile.partition}: no such partition; {hint}"]


def size_problems(profile: Profile, partition: client.Partition, nodes: Sequence[client.Node]) -> Iterator[str]:
    where = f"partition {partition.name}"
    most_gpus = max((n.gpus for n in nodes), default=0)
    most_cpus = max((n.cpus for n in nodes), default=0)
    most_nodes = min(partition.nodes, partition.most_nodes or partition.nodes)
    if profile.nodes > most_nodes:
        yield f"--nodes {profile.nodes}: {where} gives at most {most_nodes}"
    enough = [n for n in nodes if n.gpus >= profile.gpus_per_node]
    if profile.gpus_per_node > most_gpus:
        yield f"--gpus-per-node {profile.gpus_per_node}: nodes of {where} have at most {most_gpus}" + (
            "; for processes without a GPU give --gpus-per-node 0 --processes-per-node N" if not most_gpus else ""
        )
    elif profile.nodes <= most_nodes and len(enough) < profile.nodes:
        yield f"--nodes {profile.nodes} --gpus-per-node {profile.gpus_per_node}: {where} has {len(enough)} such nodes"
    cpus = profile.processes * profile.cpus_per_process
    if nodes and cpus > most_cpus:
        yield (
            f"{profile.processes} processes a node x {profile.cpus_per_process} cores each (--cpus-per-process) = {cpus}: "
            f"nodes of {where} have at most {most_cpus}"
        )
    minutes = client.minutes(profile.time)
    if partition.most_minutes is not None and minutes > partition.most_minutes:
        yield f"--time {profile.time}: {where} allows {partition.most_minutes} minutes; a run is requeued, so shorter lives do"
    if minutes * 60 <= profile.warning:
        yield f"--time {profile.time}: not longer than the warning of {profile.warning} s; give a longer limit or a shorter warning"


def folder_problems(out: Path) -> Iterator[str]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as e:
        yield f"out={out}: cannot be written ({e.strerror}); give another out=FOLDER"


def mounts() -> list[tuple[Path, str]]:
    """Mount points with their file systems, those mounted last first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = [(Path(w[1].replace("\\040", " ")), w[2]) for w in (line.split() for line in lines)]
    return found[::-1]


def file_system(path: Path, mounted: Sequence[tuple[Path, str]]) -> str:
    """The type of the file system that a path is on."""
    path = path.resolve()
    fits = [(len(p.parts), t) for p, t in mounted if path.is_relative_to(p)]
    return max(fits, key=lambda f: f[0], default=(0, "unknown"))[1]


def shared_problems(
    profile: Profile, out: Path, nodes: Sequence[client.Node], mounted: Sequence[tuple[Path, str]]
) -> Iterator[str]:
    """A folder of this machine alone is no place for what all nodes write, unless this machine is all the nodes."""
    kind = file_system(out, mounted)
    here = socket.gethostname().split(".")[0]
    if kind not in LOCAL or (nodes and all(n.host.split(".")[0] == here for n in nodes)):
        return
    if any(out.resolve().is_relative_to(Path(os.path.expandvars(f)).resolve()) for f in profile.shared_folders):
        return
    yield (
        f"out={out}: on a file system of this machine ({kind}), which the nodes do not see; give an out=FOLDER on a shared one, "
        "or name the folder in the cluster profile's shared_folders if they do"
    )


def active_problems(run: Path) -> Iterator[str]:
    """Two jobs must not train in one folder."""
    held = _locked(run)
    if held:
        yield f"out={run}: {held} is training in it; wait for it, or give another out=FOLDER"
    for record in (r for f in folders(run) for r in records(f)):
        if record.status.state in ("done", "failed", "cancelled") or not record.job:
            continue
        info = client.job(record.job)
        if info is not None and info.active:
            yield (
                f"out={run}: job {record.job} is {info.state.lower()} for it; "
                f"`python launch/slurm.py status {run}` shows it, `... cancel {run}` ends it"
            )


def _locked(run: Path) -> str | None:
    """Who holds the run's lock, as far as this machine can tell."""
    import fcntl

    from trainer.state import fence

    path = run / ".lock"
    if not path.exists():
        return None
    try:
        with open(path, "r+b") as f:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return str(fence.holder(run) or "another process")
    except OSError:
        return None  # no locks here, or not ours to open: the check of the folder says so
    return None

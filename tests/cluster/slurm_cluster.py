"""A real Slurm on this machine: its own munged, slurmctld and several slurmd, started in a folder of its own and ended by their pids.

Virtual nodes (`slurmd -N`) share the host's network, or, with `links=True`, live in network namespaces joined by a bridge, so that a
link can be cut. Nothing outside the folder is written, but /etc/netns/NAME of the namespaces, which go again.

Partitions: main (n1..), low and high on the same two nodes (high preempts low by requeueing), frail (two nodes to be killed), gpu (two
GPUs that are device files only), elsewhere (a node of another host, never up). Every node says that it has eight cores, whatever there is.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.ports import free_ports

T = TypeVar("T")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")


def missing() -> str | None:
    """Why no Slurm can be started here, or None."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [p for p in PROGRAMS if not shutil.which(p, path=path)]
    if absent:
        return f"{', '.join(absent)} not installed (apt-get install slurmctld slurmd slurm-client munge)"
    return None if os.geteuid() == 0 else "a test cluster of its own wants root (virtual nodes, munge key)"


def no_links() -> str | None:
    """Why no network namespaces can be made here, or None."""
    if not shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
        return "no `ip` (apt-get install iproute2)"
    name = f"mp{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], text=True, capture_output=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    try:
        pair = f"ip -n {name} link add v0 type veth peer name v1".split()
        bridge = f"ip -n {name} link add b0 type bridge".split()
        for words in (pair, bridge):
            done = subprocess.run(words, text=True, capture_output=True)
            if done.returncode:
                return f"no virtual links here: {done.stderr.strip()}"
        inside = ["ip", "netns", "exec", name, "unshare", "--uts", "hostname", "n1"]
        done = subprocess.run(inside, text=True, capture_output=True)
        return f"no host names of their own here: {done.stderr.strip()}" if done.returncode else None
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def until(what: str, probe: Callable[[], T], limit: float = 60, every: float = 0.1) -> T:
    """The first true value of `probe`, asked again and again.

    Raises:
        TimeoutError: not within `limit` seconds.
    """
    ends = time.monotonic() + limit
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > ends:
            raise TimeoutError(f"{what}: not within {limit:.0f} s")
        time.sleep(every)


CONF = """
ClusterName=virt
SlurmctldHost={ctl}({address})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for its credentials to expire: two minutes by default, seven seconds so (5 is the least allowed).
AuthInfo=socket={root}/munge/sock,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/pid/slurmctld
SlurmdPidFile={root}/pid/slurmd.%n
SlurmctldLogFile={root}/log/slurmctld
SlurmdLogFile={root}/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
{accounting}MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
# Short, since tests wait for it; not so short that a busy machine looks like a dead node.
SlurmdTimeout=20
KillWait={kill_wait}
MinJobAge={remembered}
FirstJobId={first}
GresTypes=gpu
NodeName=DEFAULT CPUs=8 CoresPerSocket=8 RealMemory=16000
"""


class Cluster:
    """Starts in its constructor; `stop` ends everything it started and removes its folder."""

    def __init__(self, root: Path, nodes: int = 4, links: bool = False, books: Callable[[Cluster], str] | None = None):
        """books: starts accounting and returns its lines of slurm.conf (tests/cluster/accounting.py)."""
        self.root, self.links, self.books = root, links, books
        self.tag = f"mp{os.getpid()}{'l' if links else ''}"
        self.main = [f"n{i}" for i in range(1, nodes + 1)]
        self.others = [] if links or books else ["p1", "p2", "f1", "f2", "g1"]
        self.namespaces: list[str] = []
        self.daemons: list[psutil.Process] = []
        for name in ("state", "log", "pid", "munge", *(f"spool/{n}" for n in self.names)):
            (root / name).mkdir(parents=True)
        self.env = {
            **os.environ,
            "SLURM_CONF": str(root / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        for name in [k for k in self.env if k.startswith(("SLURM_", "SBATCH_")) and k != "SLURM_CONF"]:
            del self.env[name]
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def names(self) -> list[str]:
        return [*self.main, *self.others]

    # ------------------------------------------------------------------------------------------------------------- start

    def _start(self) -> None:
        if self.links:
            self._network()
        self._munge()
        self._configure()
        self.daemon("slurmctld", "ctl", ["slurmctld"])
        for name in self.names:
            self.start_node(name)
        until("idle nodes", lambda: set(self.names) <= set(self.idle()), 120, 0.25)

    def _configure(self) -> None:
        books = self.books(self) if self.books else "AccountingStorageType=accounting_storage/none\n"
        root, ports = self.root, free_ports(len(self.names) + 1)
        here = socket.gethostname().split(".")[0]
        text = CONF.format(
            accounting=books,
            # With accounting what the controller forgets is still known; without, tests look at jobs long after their end.
            remembered=2 if self.books else 86400,
            ctl="slctl" if self.links else here,
            address="10.77.0.254" if self.links else "127.0.0.1",
            port=ports[0],
            root=root,
            # A rank that waits for a lost one is deaf to TERM; a rank that saves on a busy machine takes a while.
            kill_wait=5 if self.links else 60,
            # Ids of another cluster must not come again, be it earlier or started in the same second: a run's port follows from its
            # job's id, and all are on one machine.
            first=random.SystemRandom().randrange(1000, 900_000),
        )
        for i, (name, port) in enumerate(zip(self.names, ports[1:], strict=True), 1):
            gres = " Gres=gpu:2" if name == "g1" else ""
            where = f"NodeAddr=10.77.0.{i}" if self.links else f"NodeHostName={here} NodeAddr=127.0.100.{i}"
            text += f"NodeName={name} {where} Port={port}{gres}\n"
        text += f"PartitionName=main Nodes={','.join(self.main)} Default=YES MaxTime=2:00:00\n"
        if self.others:
            text += "NodeName=e1 NodeAddr=127.0.101.1 State=DOWN\nPartitionName=elsewhere Nodes=e1\n"
            text += "PartitionName=low Nodes=p1,p2 PriorityTier=1 GraceTime=120\n"
            text += "PartitionName=high Nodes=p1,p2 PriorityTier=10 PreemptMode=OFF\n"
            text += "PartitionName=frail Nodes=f1,f2\nPartitionName=gpu Nodes=g1\n"
            for i in range(2):  # the null device: there to be counted
                os.mknod(root / f"gpu{i}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            (root / "gres.conf").write_text(f"NodeName=g1 Name=gpu File={root}/gpu[0-1]\n")
        (root / "slurm.conf").write_text(text)
        # slurmd loads a cgroup plugin whatever it is used for, and dies when it has to guess which.
        (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _munge(self) -> None:
        m = self.root / "munge"
        (m / "key").write_bytes(os.urandom(1024))
        (m / "key").chmod(0o600)
        files = ["-S", m / "sock", f"--key-file={m / 'key'}", f"--pid-file={self.root / 'pid' / 'munged'}"]
        files += [f"--log-file={self.root / 'log' / 'munged'}", f"--seed-file={m / 'seed'}"]
        self.daemon("munged", "ctl", ["munged", "--force", *map(str, files)])

    def _network(self) -> None:
        """Controller and bridge in one namespace, each node in its own: nothing of the host's network is touched."""
        hosts = ["127.0.0.1 localhost", "10.77.0.254 slctl", *(f"10.77.0.{i} {n}" for i, n in enumerate(self.names, 1))]
        for name in ("ctl", *self.names):
            space = f"{self.tag}{name}"
            run("ip", "netns", "add", space)
            self.namespaces.append(space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            folder = Path("/etc/netns") / space
            folder.mkdir(parents=True)
            (folder / "hosts").write_text("\n".join(hosts) + "\n")
        ctl = f"{self.tag}ctl"
        run("ip", "-n", ctl, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", ctl, "addr", "add", "10.77.0.254/24", "dev", "br0")
        run("ip", "-n", ctl, "link", "set", "br0", "up")
        for i, name in enumerate(self.names, 1):
            space = f"{self.tag}{name}"
            run(*f"ip link add v{i} netns {ctl} type veth peer name eth0 netns {space}".split())
            run("ip", "-n", ctl, "link", "set", f"v{i}", "master", "br0", "up")
            run("ip", "-n", space, "addr", "add", f"10.77.0.{i}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")

    def on(self, node: str, command: Sequence[str]) -> list[str]:
        """The command as it runs on a node (or `ctl`)."""
        if not self.links:
            return list(command)
        name = "slctl" if node == "ctl" else node
        inside = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name, *command]
        return ["ip", "netns", "exec", f"{self.tag}{node}", *inside]

    def daemon(self, name: str, node: str, command: Sequence[str]) -> None:
        """Starts a daemon and remembers the process that its pid file names."""
        file = self.root / "pid" / name
        file.unlink(missing_ok=True)
        with open(self.root / "log" / "start", "a") as log:
            subprocess.run(self.on(node, command), env=self.env, check=True, stdout=log, stderr=log, cwd=self.root)
        pid = until(f"{name} running", lambda: file.exists() and file.read_text().strip(), 60)
        self.daemons.append(psutil.Process(int(pid)))

    def start_node(self, name: str) -> None:
        self.daemon(f"slurmd.{name}", name, ["slurmd", "-N", name])

    # --------------------------------------------------------------------------------------------------------------- use

    def command(self, *words: str, check: bool = True, limit: float = 60) -> str:
        """Output of a command as it runs on the login node."""
        done = subprocess.run(
            self.on("ctl", words), env=self.env, text=True, capture_output=True, timeout=limit, cwd=self.root
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def idle(self) -> list[str]:
        return self.command("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False).split()

    def job(self, job: str) -> dict[str, str]:
        """What the controller knows of a job."""
        words = self.command("scontrol", "-o", "show", "job", job, check=False).split()
        return dict(w.partition("=")[::2] for w in words if "=" in w)

    def state(self, job: str) -> str:
        return self.job(job).get("JobState", "")

    def tasks(self, job: str) -> dict[int, psutil.Process]:
        """Training processes of a job (of an element of an array, as `scontrol` names it), by rank."""
        element = job.partition("_")[::2]
        found = {}
        for p in psutil.process_iter(["cmdline"]):
            try:
                if any(w.endswith(("launch/pretrain.py", "launch/finetune.py")) for w in p.info["cmdline"] or []):
                    env = p.environ()
                    name = (
                        env.get("SLURM_ARRAY_JOB_ID") or env.get("SLURM_JOB_ID"),
                        env.get("SLURM_ARRAY_TASK_ID", ""),
                    )
                    mine = env.get("SLURM_CONF") == self.env["SLURM_CONF"] and p.status() != psutil.STATUS_ZOMBIE
                    if mine and name == element and "RANK" in env:
                        found[int(env["RANK"])] = p
            except psutil.Error:
                continue
        return found

    def of_node(self, name: str) -> list[psutil.Process]:
        """Everything that runs for Slurm on a node: slurmd, its step daemons, and what they started."""
        spool = str(self.root / "spool" / name)
        found: list[psutil.Process] = []
        for p in psutil.process_iter(["name"]):
            try:
                mine = p.info["name"] == "slurmd" and "-N" in p.cmdline() and name in p.cmdline()
                mine = mine or (p.info["name"] == "slurmstepd" and p.cwd().startswith(spool))
                mine = mine or p.environ().get("SLURMD_NODENAME") == name
                if mine and str(self.root) in p.environ().get("SLURM_CONF", str(self.root)):
                    found.append(p)
            except psutil.Error:
                continue
        return found

    def kill_node(self, name: str) -> None:
        """The power goes: everything of the node is killed at once."""
        everything = self.of_node(name)
        for p in everything:
            kill(p)
        psutil.wait_procs(everything, timeout=10)

    def cut(self, name: str) -> None:
        i = self.names.index(name) + 1
        run("ip", "-n", f"{self.tag}ctl", "link", "set", f"v{i}", "down")

    def mend(self, name: str) -> None:
        i = self.names.index(name) + 1
        run("ip", "-n", f"{self.tag}ctl", "link", "set", f"v{i}", "up")

    # -------------------------------------------------------------------------------------------------------------- stop

    def stop(self) -> None:
        if (self.root / "pid" / "slurmctld").exists():
            with contextlib.suppress(subprocess.TimeoutExpired):  # whatever still runs is killed below
                subprocess.run(self.on("ctl", ["scancel", "-u", "root"]), env=self.env, timeout=20, capture_output=True)
        steps = self._mine()
        for p in reversed(self.daemons):
            kill(p, signal.SIGTERM)
        _, alive = psutil.wait_procs(self.daemons, timeout=5)
        doomed = {*alive, *steps, *self._mine()}
        for p in doomed:
            kill(p)
        psutil.wait_procs(doomed, timeout=30)
        left = [p.name() for p in self._mine() if p.status() != psutil.STATUS_ZOMBIE]
        for space in self.namespaces:
            run("ip", "netns", "del", space)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
        if self.namespaces and not any(Path("/etc/netns").iterdir()):
            Path("/etc/netns").rmdir()
        shutil.rmtree(self.root, ignore_errors=True)
        assert not left, f"still running: {left}"

    def _mine(self) -> list[psutil.Process]:
        """Step daemons and jobs of this cluster, known by its configuration file in their environment."""
        # Read raw: a step daemon writes its title over the beginning of its environment, where psutil then stops.
        mark, found = f"SLURM_CONF={self.env['SLURM_CONF']}".encode(), []
        for p in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if p.pid != os.getpid() and mark in Path(f"/proc/{p.pid}/environ").read_bytes().split(b"\0"):
                    found.append(p)
        return found


def kill(p: psutil.Process, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        p.send_signal(number)


def run(*words: str) -> None:
    done: Any = subprocess.run(words, text=True, capture_output=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"

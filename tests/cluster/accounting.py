"""Real accounting behind a test cluster: a MariaDB of its own folder and a slurmdbd, which slurmctld tells of every job."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

import psutil

from tests.cluster.slurm_cluster import Cluster, until
from tests.ports import free_ports

PROGRAMS = ("slurmdbd", "sacct", "mariadbd", "mariadb-install-db", "my_print_defaults")
CONF = """
AuthType=auth/munge
AuthInfo=socket={root}/munge/sock
DbdHost=localhost
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
StorageLoc=slurm
PidFile={root}/pid/slurmdbd
LogFile={root}/log/slurmdbd
"""


def no_accounting() -> str | None:
    """Why no accounting can be started here, or None."""
    absent = [p for p in PROGRAMS if not shutil.which(p, path="/usr/sbin:/usr/bin:/sbin:/bin")]
    return f"{', '.join(absent)} not installed (apt-get install slurmdbd mariadb-server-core)" if absent else None


def start(cluster: Cluster) -> str:
    """Starts database and slurmdbd; returns the lines of slurm.conf that make slurmctld use them."""
    root = cluster.root
    database, port = free_ports(2)
    _database(cluster, root / "db", database)
    conf = root / "slurmdbd.conf"
    conf.write_text(CONF.format(root=root, port=port, database=database))
    conf.chmod(0o600)
    cluster.daemon("slurmdbd", "ctl", ["slurmdbd"])
    until("slurmdbd", lambda: _answers(port), 120)  # it makes its tables first; slurmctld does not wait for it
    return (
        f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\nAccountingStoragePort={port}\n"
        f"AccountingStoragePass={root}/munge/sock\n"  # with munge this is the place of its socket
    )


def _database(cluster: Cluster, folder: Path, port: int) -> None:
    common = ["--no-defaults", "--user=root", f"--datadir={folder}"]
    with open(cluster.root / "log" / "mariadb", "a") as log:
        made = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(made, env=cluster.env, check=True, stdout=log, stderr=log)
        own = [f"--socket={cluster.root / 'db.sock'}", f"--port={port}", "--bind-address=127.0.0.1"]
        child = subprocess.Popen(["mariadbd", *common, *own], env=cluster.env, stdout=log, stderr=log)
    cluster.daemons.append(psutil.Process(child.pid))
    until("the database", lambda: _answers(port, greets=True), 60)


def _answers(port: int, greets: bool = False) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as s:
        return bool(s.recv(1)) if greets else True
    return False

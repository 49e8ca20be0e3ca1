"""What a cluster wants of a job, written down once: configs/cluster/NAME.yaml. Words of the command line go over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from trainer.cluster.client import minutes
from trainer.config import yaml_text
from trainer.config.files import CONFIGS, named_file
from trainer.config.schema import checked
from trainer.config.shared import Section

PROFILES = CONFIGS / "cluster"


class Profile(Section):
    partition: str | None = None
    """The cluster's default partition when not given."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    """Node features, as in `sbatch --constraint`."""
    reservation: str | None = None
    exclude: str | None = None
    """Nodes to stay away from."""
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    """One process a GPU; 0 on CPU nodes."""
    processes_per_node: int = Field(1, ge=1)
    """Processes of a node without GPUs."""
    cpus_per_process: int = Field(1, ge=1)
    """Cores of a process: for its reader threads (data.workers) and its own work."""
    mem_gb: float | None = Field(None, gt=0)
    """Host memory of a node; the partition's default when not given."""
    exclusive: bool = False
    """No other job on the nodes."""
    time: str = "1:00:00"
    """Time limit of one life of the job; it is requeued until the run is done, so this may be short."""
    warning: int = Field(120, ge=5)
    """Seconds before the time limit at which the run is told to save: at least a step and a save, or two saves where those are
    written in the background. Slurm may be up to a minute early."""
    max_restarts: int = Field(3, ge=0)
    """Crashes in a row without a new checkpoint after which the job is not requeued any more."""
    setup: tuple[str, ...] = ()
    """Shell lines before anything runs: modules, activation of an environment."""
    python: str | None = None
    """What starts Python on a node, where it is not the Python of the submission: `apptainer exec --nv image.sif python`."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of every process, for example NCCL_SOCKET_IFNAME."""
    shared_folders: tuple[str, ...] = ()
    """Folders that every node sees although their file system looks local."""
    sbatch: dict[str, Any] = Field(default_factory=dict)
    """Further options of sbatch, as they are."""

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: object) -> str:
        minutes(str(value))
        return str(value)

    @property
    def processes(self) -> int:
        """Processes of a node."""
        return self.gpus_per_node or self.processes_per_node

    @property
    def world(self) -> int:
        return self.nodes * self.processes


def load(name: str | None, words: Mapping[str, Any]) -> Profile:
    """A profile (a file, or a name in configs/cluster; `default` when not given) with words of the command line over it.

    Raises:
        UserError: no such file, every unknown key and wrong value at once.
    """
    values = {
        **yaml_text.read(find(name or "default"), "a cluster profile"),
        **{k: v for k, v in words.items() if v is not None},
    }
    return checked(Profile, values)


def find(name: str) -> Path:
    return named_file(name, PROFILES, "--cluster ", "cluster profile", f" in {PROFILES}")

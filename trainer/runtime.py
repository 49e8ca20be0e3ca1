"""Processes and devices: who am I, how many are we, what do we agree on. The one place that knows about ranks."""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from shards.resident import peak_resident
from trainer.config.shared import Health, Precision
from trainer.errors import UserError, everywhere
from trainer.rendezvous import ranks_from

T = TypeVar("T")
WATCHDOG_TAKES = 600.0  # seconds, at most, from a pause that is over to the report of it


@dataclass(frozen=True)
class Runtime:
    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """Prints once for all ranks."""
        if self.main:
            print(text, flush=True)


def environment_rank() -> int:
    """This process's rank before anything is initialised."""
    return int(os.environ.get("RANK", "0"))


def environment_world() -> int:
    """Number of ranks before anything is initialised."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def find_ranks() -> None:
    """Fills in torch's variables where only Slurm has said who this process is (trainer/rendezvous.py).

    Raises:
        UserError: there are several processes, and nothing says which of them this is: each would train a model of its own.
    """
    os.environ.update(ranks_from(os.environ))


def choose_accelerator() -> None:
    """Tells DeepSpeed what this machine has; before it is imported."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Nothing is compiled on a CPU, but DeepSpeed would load the compiler for one helper: over a second a rank.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def start(local_rank: int = 0, health: Health | None = None) -> Runtime:
    """Joins the process group (alone when no launcher set one up) and picks the device.

    Raises:
        UserError: of several processes nobody has said which this one is, or there are more ranks than devices.
    """
    choose_accelerator()
    find_ranks()
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world))
    # DeepSpeed would compile a shared-memory op (a minute, and a compiler) that only inference uses.
    setattr(importlib.import_module("deepspeed.comm.torch"), "build_shm_op", lambda: None)  # noqa: B010
    _quiet_deepspeed()
    local_rank = int(os.environ.get("LOCAL_RANK", local_rank))
    cuda = torch.cuda.is_available()
    index = device_index(local_rank, torch.cuda.device_count()) if cuda else 0
    if cuda:
        torch.cuda.set_device(index)
    _join("nccl" if cuda else "gloo", longest_wait(health or Health()))
    device = torch.device("cuda", index) if cuda else torch.device("cpu")
    return Runtime(dist.get_rank(), dist.get_world_size(), local_rank, device)


def alone(device: str | None = None) -> Runtime:
    """One process without a process group, on the device named, or the first GPU if there is one.

    Raises:
        UserError: no such device.
    """
    try:
        named = torch.device(device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=named)
    except (RuntimeError, AssertionError) as e:
        raise UserError(
            f"device={device!r}: torch has no such device here ({str(e).splitlines()[0]}); leave it out"
        ) from e
    return Runtime(0, 1, 0, named)


def has_half() -> bool:
    """Whether this process has a device on which float16 is trained."""
    return torch.cuda.is_available()


def check_precision(precision: Precision, planned: bool = False) -> list[str]:
    """Refuses what the machine has no device for; of a run that is only `planned` here, gives it as lines of the plan.

    Raises:
        UserError: float16 on a CPU.
    """
    if precision != "fp16" or has_half():
        return []
    text = "precision=fp16: this machine has no device for it; use bf16 or fp32"
    if planned:
        return [f"warning: {text}, or start it on a machine with a GPU: here it is refused at the start"]
    raise UserError(text)


def device_index(local_rank: int, visible: int) -> int:
    """The device of a rank: the only one where each task sees its own (--gpus-per-task=1), else that of its number on the node.

    Raises:
        UserError: more ranks than devices.
    """
    if visible == 1:
        return 0
    if local_rank >= visible:
        raise UserError(
            f"local rank {local_rank}: this process sees {visible} devices (CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}); start as many ranks a node as it has devices"
        )
    return local_rank


def longest_wait(health: Health) -> timedelta:
    """How long a rank may wait for the others in a collective: for as long as one of them may pause, and the watchdog needs to name it.

    The watchdog (trainer/health/watchdog.py) ends a rank that takes longer, so this time-out is only met where nothing
    watches. DeepSpeed's own, ten minutes, would end a run whose rank 0 publishes, converts or evaluates for longer.
    DEEPSPEED_TIMEOUT (minutes) can make it longer.
    """
    pause = max(health.hang_pause, health.hang_floor)
    asked = 60.0 * int(os.environ.get("DEEPSPEED_TIMEOUT", "0"))
    return timedelta(seconds=max(pause + min(pause, WATCHDOG_TAKES), asked))


def _quiet_deepspeed() -> None:
    """DeepSpeed's chatter below warnings is not for our users, nor what it still calls by its old name."""
    import logging
    import warnings

    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")


def _join(backend: str, timeout: timedelta) -> None:
    """The process group, which several runs of one process share. Alone it needs no port: one that is free now may be another's a
    moment later."""
    import deepspeed

    alone = int(os.environ.setdefault("WORLD_SIZE", "1")) == 1
    if alone:
        os.environ.setdefault("RANK", "0")
        os.environ.setdefault("LOCAL_RANK", "0")
        if not dist.is_initialized():
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False, timeout=timeout)


def finish() -> None:
    """Leaves the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


# ------------------------------------------------------------------------------------------------------------ agreement


# `group`: of the same ranks, for a thread whose collectives must not meet those of training.


def barrier(group: dist.ProcessGroup | None = None) -> None:
    if dist.get_world_size() > 1:
        dist.barrier(group=group)


def agree_sum(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Sums named numbers over ranks: the one small all-reduce of a step."""
    t = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    if dist.get_world_size() > 1:
        dist.all_reduce(t)
    return dict(zip(values, t.tolist(), strict=True))


def from_main(make: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """Runs `make` on rank 0 and gives every rank its result, or raises its error everywhere."""
    box: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            box[0] = make()
        except Exception as e:
            box[1] = everywhere(e)
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0, group=group)
    if box[1] is not None:
        raise box[1]
    return box[0]


def gather_objects(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's value, on every rank, in rank order."""
    out: list[Any] = [None] * dist.get_world_size()
    if dist.get_world_size() > 1:
        dist.all_gather_object(out, value, group=group)
    else:
        out[0] = value
    return out


def agree_on_data(fingerprint: str) -> None:
    """Refuses ranks that opened different data sets, as they do when one is replaced while a job starts. All ranks must call.

    Raises:
        UserError: on every rank, with the fingerprints.
    """
    found = gather_objects(fingerprint)
    if len(set(found)) > 1:
        ranks = {f: [r for r, own in enumerate(found) if own == f] for f in dict.fromkeys(found)}
        said = "; ".join(
            f"{f[:12]} on rank {', '.join(map(str, r[:8]))}{', ...' * (len(r) > 8)}" for f, r in ranks.items()
        )
        raise everywhere(
            UserError(
                f"the ranks opened different data (fingerprint {said}): the data set was replaced while they started, or data.path is "
                "another folder on some node; start again, with one data set for all"
            )
        )


# ----------------------------------------------------------------------------------------------------------- randomness


def seed_everything(seed: int, rank: int, step: int = 0) -> None:
    """Seeds torch, NumPy and Python from (seed, rank, step), well apart."""
    words = np.random.SeedSequence([seed, rank, step]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
    random.seed(int(words[2]))


def random_states() -> dict[str, Any]:
    """RNG states of this process as tensors and plain data (loadable with weights_only)."""
    kind, keys, pos, has_gauss, gauss = np.random.get_state()
    version, internal, cached = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(pos), int(has_gauss), float(gauss)],
        "python": [version, list(internal), cached],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_states(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    kind, keys, pos, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), pos, has_gauss, gauss))
    version, internal, cached = state["python"]
    random.setstate((version, tuple(internal), cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


# -------------------------------------------------------------------------------------------------------------- signals


class StopFlag:
    """Set by SIGTERM, SIGUSR2 or SIGINT; read at the step boundary, where all ranks agree. A second SIGINT ends at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)

    def __init__(self) -> None:
        self.asked: str | None = None

    def install(self) -> StopFlag:
        for s in self.SIGNALS:
            signal.signal(s, self._take)
        # A cluster job starts with these held back, so that one sent during start-up arrives here (trainer/cluster/job.py).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked == "SIGINT":
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        os.write(sys.stderr.fileno(), f"{self.asked}: stopping after this step\n".encode())


def peak_memory(device: torch.device) -> int:
    """Largest memory of this process so far, in bytes: of the device on CUDA, resident on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident()

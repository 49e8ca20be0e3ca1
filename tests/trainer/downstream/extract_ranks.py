"""Features of one encoder on several ranks, in processes of its own."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from models.contract import Method
from models.registry import get_method
from shards.read.dataset import Dataset
from tests.trainer.forking import Forks
from trainer.data import schema_of
from trainer.downstream.probes.features import Extracted, extract
from trainer.runtime import Runtime

OPTIONS = {
    "dim": 16, "heads": 2, "landmarks": 4, "genes": {"groups": 2, "fragment": 6}, "conv_kernel": 3, "window": 6,
}  # fmt: skip
ONE = Runtime(0, 1, 0, torch.device("cpu"))
BATCH = 4


def encoder(data: Dataset, seed: int = 0, **options: object) -> Method:
    """A small gimp with the random weights of a seed."""
    cls = get_method("gimp")
    torch.manual_seed(seed)
    return cls(cls.Options.parse(OPTIONS | options), schema_of(data))


def features_of(folder: Path, split: str, runtime: Runtime, cache: Path | None) -> Extracted:
    with Dataset.open(folder) as data:
        return extract(encoder(data), data, split, runtime, batch=BATCH, workers=1, cache=cache)


def main(words: list[str]) -> int:
    """`main([FOLDER, OUT, SPLIT, ...])` on each rank."""
    (folder, out), splits = map(Path, words[:2]), words[2:]
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=world)
    try:
        _extract(Runtime(rank, world, rank, torch.device("cpu")), folder, splits, out)
    finally:
        dist.destroy_process_group()
    return 0


def _extract(runtime: Runtime, folder: Path, splits: list[str], out: Path) -> None:
    for split in splits:
        for again in (0, 1):
            made = features_of(folder, split, runtime, out / "cache")
            np.savez(out / f"{split}-{runtime.rank}-{again}.npz", x=made.x_ND, keys=made.keys_N, cached=made.cached)


def run(folder: Path, splits: list[str], out: Path, worlds: list[int]) -> list[tuple[str, int, dict[str, np.ndarray]]]:
    """(split, first or second time, arrays) of every rank of every world; the second time the cache is there."""
    for world in worlds:
        (out / str(world)).mkdir()
        words = [str(folder), str(out / str(world)), *splits]
        ended = Forks(folder).launch(world, words, program="tests.trainer.downstream.extract_ranks")
        assert ended.codes == [0] * world, ended.text
    made = []
    for world, split, again in product(worlds, splits, (0, 1)):
        for rank in range(world):
            with np.load(out / str(world) / f"{split}-{rank}-{again}.npz") as stored:
                made.append((split, again, dict(stored)))
    return made

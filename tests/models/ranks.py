"""Losses and gradients of a method on several ranks, as DeepSpeed would average them. Run in processes of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does; a forked rank is no pytest
from synthetic import batch, build, records, tuned

from models.finetuned import STAGE
from tests.trainer.forking import Forks

GLOBAL_BATCH = 8


def result(method_name: str, stage: str, rank: int, world: int, **options) -> dict[str, dict[str, torch.Tensor]]:
    """Losses, diagnostics, gradients (averaged over ranks) and buffers after this rank's share of one global batch.

    `training`: in training mode, with nothing dropped at random. `double`: in float64.
    """
    training, double = options.pop("training", False), options.pop("double", False)
    method = (tuned if stage == STAGE else build)(method_name, still=training, **options)
    method.enter(stage)
    method.train(training)
    if double:
        method.double()
    # Some modalities and a label are missing, unevenly over the ranks.
    made = records(GLOBAL_BATCH, missing={1: ("rna", "report", "snp"), 6: ("patches",)})
    made[2].labels = {}
    share = GLOBAL_BATCH // world
    out = method(batch(method, made[rank * share : (rank + 1) * share]))
    out.total.backward()
    grads = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    if world > 1:
        for g in grads.values():
            dist.all_reduce(g)
            g /= world
    detached = {k: v.detach() for k, v in out.losses.items()}
    buffers = {n: b.clone() for n, b in method.named_buffers()}
    return {"losses": detached, "diagnostics": dict(out.diagnostics), "grads": grads, "buffers": buffers}


def main(words: list[str]) -> int:
    """`main([FOLDER])` on each rank: FOLDER/jobs.pt -> FOLDER/rankR.pt."""
    folder, rank, world = Path(words[0]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        jobs = torch.load(folder / "jobs.pt", weights_only=True)
        torch.save(
            [result(name, stage, rank, world, **options) for name, stage, options in jobs], folder / f"rank{rank}.pt"
        )
    finally:
        dist.destroy_process_group()
    return 0


def run(folder: Path, jobs: list[tuple[str, str, dict]], world: int = 2) -> list[list[dict]]:
    """[rank][job] -> result; all jobs in one start of `world` processes."""
    torch.save(jobs, folder / "jobs.pt")
    ended = Forks(folder).launch(world, [str(folder)], program="tests.models.ranks")
    assert ended.codes == [0] * world, ended.text
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(world)]

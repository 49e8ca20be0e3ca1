"""Losses and gradients of a method on several ranks, as DeepSpeed would average them. Run in processes of its own."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from synthetic import batch, build, records, tuned

from models.finetuned import STAGE

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


def _worker(rank: int, world: int, folder: str, jobs: list[tuple[str, str, dict]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        made = [result(name, stage, rank, world, **options) for name, stage, options in jobs]
        torch.save(made, Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def run(folder: Path, jobs: list[tuple[str, str, dict]], world: int = 2) -> list[list[dict]]:
    """[rank][job] -> result; all jobs in one start of `world` processes."""
    mp.spawn(_worker, (world, str(folder), jobs), nprocs=world)
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(world)]

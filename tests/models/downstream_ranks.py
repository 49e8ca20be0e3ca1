"""Downstream losses on several ranks, with gradients as DeepSpeed would average them. Run in processes of its own.

Shape letters: G samples of the global batch, K outputs.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist

from models.decoders.two_way import TwoWayDecoder
from models.losses import finetune as losses
from tests.trainer.forking import Forks

G, K = 8, 3
NAN = float("nan")


def jobs() -> dict[str, tuple]:
    """{name: (loss, outputs, targets)} of a global batch; unknown targets and padding lie unevenly over the ranks."""
    g = torch.Generator().manual_seed(0)
    table = (torch.rand(G, K, generator=g) < 0.5).float()
    table[:4, 0], table[5, 1:] = NAN, NAN
    unknown = torch.full((G, K), NAN)
    grade = torch.tensor([0, 1, -1, -1, 2, 2, 1, 0])
    # Ties across ranks; all events of the last half are late, so a rank alone would see other risk sets.
    survival = torch.tensor([[3, 1], [1, 1], [3, 1], [2, 0], [5, 1], [3, 0], [NAN, 1], [4, 0]])
    censored = survival.clone()
    censored[:, 1] = 0
    mask = (torch.rand(G, 1, 4, 6, generator=g) < 0.3).float()
    mask[2] = 0
    logits, values, pixels = (torch.randn(G, *s, generator=g) for s in ((K,), (K,), (1, 4, 6)))
    return {
        "bce": (losses.bce, logits, table),
        "bce_sum": (lambda *a: losses.bce(*a, reduction="sum"), logits, table),
        "bce_unknown": (losses.bce, logits, unknown),
        "bce_sum_unknown": (lambda *a: losses.bce(*a, reduction="sum"), logits, unknown),
        "multiclass": (losses.multiclass, logits, grade),
        "ordinal": (losses.ordinal, logits, grade),
        "mse": (losses.mse, values, torch.where(table.isnan(), NAN, values.flip(0))),
        "cox_efron": (losses.cox, values[:, 0], survival),
        "cox_breslow": (lambda *a: losses.cox(*a, ties="breslow"), values[:, 0], survival),
        "cox_no_event": (losses.cox, values[:, 0], censored),
        "bce_dice": (losses.bce_dice, pixels, mask),
        "focal_dice": (losses.focal_dice, pixels, mask),
    }


def weights() -> torch.Tensor:
    return torch.tensor([1, 1, 0, 1, 1, 1, 1, 0.0])


def results(rank: int, world: int) -> dict[str, dict[str, torch.Tensor]]:
    """Value, and gradient by this rank's share of the outputs, averaged over ranks as weights' would be."""
    mine, made = slice(rank * G // world, (rank + 1) * G // world), {}
    for name, (loss, outputs, targets) in jobs().items():
        # A weight that all samples share: what the ranks average is its gradient, and each sample enters it in its own way.
        weight = torch.ones_like(outputs[:1], requires_grad=True)
        other = torch.linspace(0.5, 1.5, G).view(G, *[1] * (outputs.ndim - 1))
        value = loss((outputs * (1 + (weight - 1) * other))[mine], targets[mine], weights()[mine])
        value.backward()
        made[name] = {"value": value.detach(), "grad": averaged(weight.grad, world)}
    made["running_mean"] = {"value": running_mean(mine), "grad": torch.zeros(1)}
    return made


def running_mean(mine: slice) -> torch.Tensor:
    """The stand-in for absent genes after two training batches."""
    torch.manual_seed(0)
    decoder = TwoWayDecoder(16, 8, width=16, heads=2, mlp=16, n_query=2, gene_missing="mean")
    image, genes = torch.randn(G, 4, 16), torch.randn(G, 5, 8)
    for present in ([1, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1, 1, 1]):
        decoder(image[mine], genes[mine], torch.tensor(present, dtype=torch.bool)[mine], (2, 2))
    return decoder.queries.mean_NE.clone()


def averaged(grad: torch.Tensor, world: int) -> torch.Tensor:
    if world > 1:
        dist.all_reduce(grad)
        grad /= world
    return grad


def main(words: list[str]) -> int:
    """`main([FOLDER])` on each rank; writes FOLDER/rankR.pt."""
    folder, rank, world = Path(words[0]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        torch.save(results(rank, world), folder / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()
    return 0


def run(folder: Path, world: int) -> list[dict]:
    ended = Forks(folder).launch(world, [str(folder)], program="tests.models.downstream_ranks")
    assert ended.codes == [0] * world, ended.text
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(world)]

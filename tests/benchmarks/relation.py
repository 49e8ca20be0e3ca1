"""Both passes of relation masking at ViT-B/16 shapes against plain forward passes, and the memory that selection takes.

    OMP_NUM_THREADS=2 python tests/benchmarks/relation.py [--batch 4] [--rounds 5] [--backward]

224 px, 12 blocks of width 768, 213 gene tokens (7,854 SNPs, 481 scores, 18,574 burden scores) in 4 blocks, float32.
The competitors alternate round by round, so that a busy machine slows all of them; medians and ratios are printed.
Memory is the largest sum of tensors alive in one call of relation attention, beside its output, in matrices [B, H, L,
S]. It ends with status 1 when both passes with genes cost more than --target times two plain ViT passes, or selection
more than one matrix and a tenth.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.encoders.gene_tokens import GeneTokens
from models.encoders.relation import MaskPlan, TwoPass
from models.encoders.vit import ViT
from models.layers.relation import Masking, relation_attention

DIM, HEADS, DEPTH, GENE_DEPTH = 768, 12, 12, 4
WIDTHS = {"snp": 7854, "pgs": 481, "burden": 18574}
PLAN = MaskPlan((0, 1), "per_block", Masking(0.75), Masking(0.5))


def runs(batch: int) -> dict[str, Callable[[], Tensor]]:
    torch.manual_seed(0)
    vit, genes = ViT(224, 16, dim=DIM, depth=DEPTH, heads=HEADS), GeneTokens(WIDTHS, DIM, GENE_DEPTH, HEADS)
    both, alone = TwoPass(vit, genes, PLAN, HEADS, DIM), TwoPass(vit, None, PLAN, HEADS, DIM)
    image, values = torch.randn(batch, 3, 224, 224), {n: torch.randn(batch, w) for n, w in WIDTHS.items()}

    def plain_genes() -> Tensor:
        g = genes.embed(values)
        for block in genes.blocks:
            g = block(g)
        return genes.norm(g)

    def summed(out: dict[str, dict[str, Tensor]]) -> Tensor:
        return sum((t.sum() for t in out["tokens"].values()), torch.zeros(()))

    return {
        "ViT, two plain passes": lambda: vit(image).sum() + vit(image).sum(),
        "ViT + genes, two plain passes": lambda: sum(
            f().sum() for f in (lambda: vit(image), plain_genes) for _ in "12"
        ),
        "both passes, image alone": lambda: summed(alone(image, {}, None, None)),
        "both passes, image + genes": lambda: summed(both(image, values, None, None)),
    }


def measure(batch: int, rounds: int, backward: bool) -> dict[str, float]:
    """Median seconds, after one round that does not count."""
    made = runs(batch)
    times: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(rounds + 1):
        for name, run in made.items():
            start = time.perf_counter()
            with torch.set_grad_enabled(backward):
                value = run()
            if backward:
                value.backward()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operators made and that are still alive; `peak` is their largest sum."""

    def __init__(self, given: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.given = {t.untyped_storage().data_ptr() for t in given}
        self.users: Counter[int] = Counter()
        self.size: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in (x for x in tree_leaves(out) if isinstance(x, Tensor)):
            storage = t.untyped_storage()
            if storage.data_ptr() in self.given:
                continue
            self.users[storage.data_ptr()] += 1
            self.size[storage.data_ptr()] = storage.nbytes()
            weakref.finalize(t, self._gone, storage.data_ptr())
        self.peak = max(self.peak, sum(self.size.values()))
        return out

    def _gone(self, pointer: int) -> None:
        self.users[pointer] -= 1
        if self.users[pointer] == 0:
            self.size.pop(pointer, None)


def selection_memory(batch: int = 64) -> float:
    """Largest sum of live tensors in one call, less inputs and what it returns, in attention matrices."""
    q, k, v = (torch.randn(batch, HEADS, 197, DIM // HEADS, requires_grad=True) for _ in range(3))
    with Live((q, k, v)) as live:
        out, kept = relation_attention(q, k, v, Masking(0.75))
    return (live.peak / 4 - out.numel() - kept.numel()) / (batch * HEADS * 197 * 197)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", type=float, default=2.3)
    parser.add_argument("--backward", action="store_true", help="measure forward + backward too")
    parser.add_argument("--memory", action="store_true", help="only measure the memory of selection, and print it")
    args = parser.parse_args()
    if args.memory:
        print(selection_memory())
        return 0
    worst = 0.0
    for backward in (False, True) if args.backward else (False,):
        found = measure(args.batch, args.rounds, backward)
        print(
            f"{'forward + backward' if backward else 'forward'}, batch {args.batch}, {torch.get_num_threads()} threads"
        )
        base = found["ViT, two plain passes"]
        for name, took in found.items():
            print(f"  {name:32} {took:7.3f} s   x {took / base:.2f}")
        worst = worst if backward else found["both passes, image + genes"] / base
    matrices = selection_memory()
    print(f"selection: {matrices:.2f} attention matrices beside the output (target <= 1.1)")
    print(f"both passes with genes: {worst:.2f} of two plain ViT passes (target <= {args.target})")
    return int(worst > args.target or matrices > 1.1)


if __name__ == "__main__":
    sys.exit(main())

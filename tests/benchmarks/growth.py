"""How the cost of encoders grows with the patches of a slide and with genes: forward + backward of one sample, processor time.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.growth [--rounds 3] [--only genes]

Prints milliseconds at each size (the least of the rounds), the memory of what forward keeps for backward, and the slope of time
between the ends in logarithms: 1 where twice the size costs twice the time.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from models.encoders.aggregator import PatchAggregator
from models.encoders.group_msa import GroupMSA
from models.encoders.mamba import GeneMamba
from models.encoders.snn import SNN
from models.layers.bag_attention import BagAttention

PATCHES, FEW_PATCHES = (1024, 4096, 16384), (1024, 2048, 4096)
GENES = (7560, 15120, 30240, 60480)
CASES: dict[str, tuple[tuple[int, ...], Callable[[int], nn.Module], Callable[[int], tuple[int, ...]]]] = {
    "patches: gated attention, 512 wide": (
        PATCHES,
        lambda n: BagAttention(512, 256, gated=True, dropout=0.25),
        lambda n: (n, 512),
    ),
    "patches: two layers of Nystrom attention, 512 wide": (
        PATCHES,
        lambda n: PatchAggregator(1024, 512, mask_token=False),
        lambda n: (1, n, 1024),
    ),
    "patches: the same, exact": (
        FEW_PATCHES,
        lambda n: PatchAggregator(1024, 512, attention="exact", mask_token=False),
        lambda n: (1, n, 1024),
    ),
    "genes: SNN, 256 wide": (GENES, lambda n: SNN(n, 256), lambda n: (1, n)),
    "genes: GroupMSA, 512 wide": (GENES, lambda n: GroupMSA(n, 512), lambda n: (1, n)),
    "genes: Mamba of chunks of 64, 256 wide": (GENES, lambda n: GeneMamba(n), lambda n: (1, n)),
    "genes: Mamba of a token a gene, one block 64 wide": (
        GENES,
        lambda n: GeneMamba(n, dim=64, depth=1, tokens="per_gene"),
        lambda n: (1, n),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name has this")
    args = parser.parse_args()
    for name in [n for n in CASES if args.only in n]:
        sizes, make, shape = CASES[name]
        print(name, *measured(sizes, make, shape, args.rounds), sep="\n    ", flush=True)


def measured(
    sizes: tuple[int, ...], make: Callable[[int], nn.Module], shape: Callable[[int], tuple[int, ...]], rounds: int
) -> Iterator[str]:
    found = []
    for n in sizes:
        torch.manual_seed(0)
        module, x = make(n), torch.randn(shape(n))
        took, kept = zip(*(_pass(module, x) for _ in range(rounds)), strict=True)
        found.append(min(took))
        yield f"{n:>6}: {min(took) * 1e3:8.1f} ms, {max(kept) / 2**20:8.1f} MiB kept"
    yield f"slope {math.log(found[-1] / found[0]) / math.log(sizes[-1] / sizes[0]):.2f}"


def _pass(module: nn.Module, x: Tensor) -> tuple[float, int]:
    """Seconds, and bytes that forward keeps for backward, weights left out; each storage once."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()} | {x.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        where = t.untyped_storage()
        if where.data_ptr() not in own:
            kept[where.data_ptr()] = where.nbytes()
        return t

    module.zero_grad(set_to_none=True)
    began = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        found = module(x)
    tensors = [found] if isinstance(found, Tensor) else list(found)
    sum((t.float().square().mean() for t in tensors), torch.zeros(())).backward()
    return time.process_time() - began, sum(kept.values())


if __name__ == "__main__":
    main()

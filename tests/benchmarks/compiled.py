"""What torch.compile (inductor, C++ on a CPU) gives: a ViT-B block and a Nystrom layer, forward + backward, against the same uncompiled.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.compiled [--rounds 9]

The layers of a model are alike, so that one tells of all. Uncompiled and compiled alternate in one process; processor time, medians. The
time of compiling, C++ compiler included, is printed beside it, and how far the results are apart. Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.layers.nystrom import LongAttention
from models.layers.vit_block import Block

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], torch.dtype]] = {
    "ViT-B block, fp32": (lambda: Block(768, 12), (4, 197, 768), torch.float32),
    "ViT-B block, bf16": (lambda: Block(768, 12), (4, 197, 768), torch.bfloat16),
    "Nystrom, 6,000 tokens": (lambda: LongAttention(512, 8, 256), (1, 6000, 512), torch.float32),
}


def processor() -> float:
    """Seconds of this process and of compilers that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def passes(module: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> tuple[float, Tensor]:
    x = x.clone().requires_grad_()
    began = time.process_time()
    (module(x) * weight).sum().backward()
    assert x.grad is not None
    return time.process_time() - began, x.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; processor time, median of {args.rounds}")
    for name, (make, shape, dtype) in CASES.items():
        torch.manual_seed(0)
        plain = make().to(dtype)
        compiled = torch.compile(copy.deepcopy(plain))
        x, weight = torch.randn(2, *shape).to(dtype)
        began = processor()
        _, there = passes(compiled, x, weight)
        took, (_, here) = processor() - began, passes(plain, x, weight)
        times = [(passes(plain, x, weight)[0], passes(compiled, x, weight)[0]) for _ in range(args.rounds)]
        own, new = (statistics.median(t) for t in zip(*times, strict=True))
        ratio = statistics.median(a / b for a, b in times)
        apart = float((there - here).abs().max() / here.abs().max())
        print(
            f"{name:22} {own * 1e3:7.1f} ms, compiled {new * 1e3:7.1f} ms, {ratio:.2f}x as fast; to compile {took:.0f} s; "
            f"gradients apart by {apart:.0e} of the largest",
            flush=True,
        )


if __name__ == "__main__":
    main()

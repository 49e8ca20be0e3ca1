"""What torch.compile (inductor, C++ on a CPU) gives to networks of each family, forward + backward, against the same uncompiled.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.compiled [--rounds 9] [--only "gated attention"]

Of a ViT one block, since its layers are alike. Uncompiled and compiled alternate in one process; processor time, medians. The
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
import torch._inductor.config
from torch import Tensor, nn

from models.encoders.resnet import ConvNet
from models.encoders.snn import SNN
from models.encoders.unet import UNetEncoder
from models.layers.bag_attention import BagAttention
from models.layers.nystrom import LongAttention
from models.layers.vit_block import Block

Case = tuple[Callable[[], nn.Module], tuple[int, ...], torch.dtype]
FLOAT, HALF = torch.float32, torch.bfloat16
CASES: dict[str, Case] = {
    "ViT-B block, fp32": (lambda: Block(768, 12), (4, 197, 768), FLOAT),
    "ViT-B block, bf16": (lambda: Block(768, 12), (4, 197, 768), HALF),
    "Nystrom, 6,000 tokens": (lambda: LongAttention(512, 8, 256), (1, 6000, 512), FLOAT),
    "short sequences, fp32": (lambda: nn.Sequential(Block(64, 4), Block(64, 4)), (16, 17, 64), FLOAT),
    "SNN, 2,000 genes, fp32": (lambda: SNN(2000, 256), (32, 2000), FLOAT),
    "SNN, 2,000 genes, bf16": (lambda: SNN(2000, 256), (32, 2000), HALF),
    "gated attention, fp32": (lambda: BagAttention(512, 256, gated=True, dropout=0.25), (4000, 512), FLOAT),
    "gated attention, bf16": (lambda: BagAttention(512, 256, gated=True, dropout=0.25), (4000, 512), HALF),
    "U-Net encoder, fp32": (lambda: UNetEncoder(1, 16, (128, 128)), (4, 1, 128, 128), FLOAT),
    "U-Net encoder, bf16": (lambda: UNetEncoder(1, 16, (128, 128)), (4, 1, 128, 128), HALF),
    "ResNet-18, fp32": (lambda: ConvNet("resnet18", 128), (4, 3, 128, 128), FLOAT),
}


def processor() -> float:
    """Seconds of this process and of compilers that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def passes(module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, list[Tensor]]:
    """Seconds, and the gradients of all weights; dropout draws the same each time."""
    module.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    began = time.process_time()
    found = forward(x)
    found = found if isinstance(found, Tensor) else found[-1]
    found.square().mean().backward()
    return time.process_time() - began, [p.grad for p in module.parameters() if p.grad is not None]


def apart(found: list[Tensor], true: list[Tensor]) -> float:
    """The largest difference of gradients, of the largest of its tensor."""
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(found, true, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="cases whose name has this")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; processor time, median of {args.rounds}")
    # Dropout as PyTorch draws it, so that both ways draw the same.
    torch._inductor.config.fallback_random = True
    for name in [n for n in CASES if args.only in n]:
        print(f"{name:24} {measured(CASES[name], args.rounds)}", flush=True)


def measured(case: Case, rounds: int) -> str:
    make, shape, dtype = case
    torch.manual_seed(0)
    plain = make().to(dtype)
    other = copy.deepcopy(plain)
    compiled = torch.compile(other)
    x = torch.randn(shape).to(dtype)
    began = processor()
    _, there = passes(other, compiled, x)
    took, (_, here) = processor() - began, passes(plain, plain, x)
    difference = apart(there, here)
    times = [(passes(plain, plain, x)[0], passes(other, compiled, x)[0]) for _ in range(rounds)]
    own, new = (statistics.median(t) for t in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    breaks_even = f"after {took / (own - new):,.0f} steps" if own > new else "never"
    return (
        f"{own * 1e3:7.1f} ms, compiled {new * 1e3:7.1f} ms, {ratio:.2f}x as fast; to compile {took:.0f} s, won back {breaks_even}; "
        f"gradients apart by {difference:.0e} of the largest"
    )


if __name__ == "__main__":
    main()

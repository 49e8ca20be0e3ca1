"""Nystrom attention against the PyPI package `nystrom-attention` and against exact attention, forward + backward.

    OMP_NUM_THREADS=2 python tests/benchmarks/attention.py [--tokens 6000 16384] [--rounds 7]

One layer of width 512 with 8 heads, 256 landmarks, 6 iterations, convolution of kernel 33, one bag, float32, the machine's
threads. The competitors alternate round by round, so that a busy machine slows all of them; medians and the ratio of medians
are printed. Ends with status 1 when a ratio to the package is below --target.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from nystrom_attention import NystromAttention
from torch import Tensor

from models.layers.nystrom import LongAttention

DIM, HEADS, LANDMARKS, ITERATIONS, KERNEL = 512, 8, 256, 6, 33


def layers() -> dict[str, Callable[[Tensor], Tensor]]:
    torch.manual_seed(0)
    return {
        "medpair nystrom": LongAttention(DIM, HEADS, LANDMARKS, ITERATIONS, KERNEL),
        "nystrom-attention": NystromAttention(
            DIM, DIM // HEADS, HEADS, LANDMARKS, ITERATIONS, residual=True, residual_conv_kernel=KERNEL
        ),
        "exact (SDPA)": LongAttention(DIM, HEADS, None, conv_kernel=KERNEL),
    }


def seconds(layer: Callable[[Tensor], Tensor], x_BLC: Tensor, weight_BLC: Tensor) -> float:
    x_BLC = x_BLC.clone().requires_grad_()
    start = time.perf_counter()
    (layer(x_BLC) * weight_BLC).sum().backward()
    return time.perf_counter() - start


def measure(tokens: int, rounds: int) -> dict[str, float]:
    """Median seconds of a forward + backward, after one round that does not count."""
    torch.manual_seed(1)
    x_BLC, weight_BLC = torch.randn(2, 1, tokens, DIM)
    competitors = layers()
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for turn in range(rounds + 1):
        for name, layer in competitors.items():
            took = seconds(layer, x_BLC, weight_BLC)
            if turn:
                times[name].append(took)
    return {name: statistics.median(t) for name, t in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[6000, 16384])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--target", type=float, default=1.3)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; median of {args.rounds} forward + backward")
    good = True
    for tokens in args.tokens:
        median = measure(tokens, args.rounds)
        ours = median["medpair nystrom"]
        for name, value in median.items():
            print(f"{tokens:7d} tokens  {name:18s} {value * 1e3:9.1f} ms   {value / ours:5.2f} x ours")
        good &= median["nystrom-attention"] / ours >= args.target
    print(f"at least {args.target} times as fast as the package: {'yes' if good else 'NO'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())

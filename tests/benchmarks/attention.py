"""Nystrom attention against the PyPI package `nystrom-attention` and against exact attention, forward + backward.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.attention [--tokens 6000 16384] [--rounds 7] [--without-exact] [--clock]

One layer of width 512 with 8 heads, 256 landmarks, 6 iterations, convolution of kernel 33, one bag, float32. The competitors alternate
round by round; medians of processor time and of the ratio within a round are printed. `--clock` is for several threads on idle cores: it
takes the least of the rounds by the clock, to which whatever still runs beside only adds. `matmul=auto` is the same layer with its
products in oneDNN where that runs (docs/performance.md), the package with them is listed too, and `its products alone` are the matrix
products of our layer and their gradients in oneDNN, without anything between them: what no layer of these equations in float32 gets below.
Ends with status 1 when the best ratio to the package is below --target.
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
from trainer.engine import matmul

DIM, HEADS, LANDMARKS, ITERATIONS, KERNEL = 512, 8, 256, 6, 33
Clock = Callable[[], float]
OURS, PACKAGE = "medpair nystrom", "nystrom-attention"


def layers() -> dict[str, Callable[[Tensor], Tensor]]:
    torch.manual_seed(0)
    return {
        OURS: LongAttention(DIM, HEADS, LANDMARKS, ITERATIONS, KERNEL),
        PACKAGE: NystromAttention(
            DIM, DIM // HEADS, HEADS, LANDMARKS, ITERATIONS, residual=True, residual_conv_kernel=KERNEL
        ),
        "exact (SDPA)": LongAttention(DIM, HEADS, None, conv_kernel=KERNEL),
    }


def step(layer: Callable[[Tensor], Tensor], x_BLC: Tensor, weight_BLC: Tensor) -> Callable[[], None]:
    x_BLC = x_BLC.clone().requires_grad_()
    return lambda: (layer(x_BLC) * weight_BLC).sum().backward()


def products(tokens: int) -> Callable[[], None]:
    """The matrix products of the layer and of its gradients, each as often as it is needed.

    L x C by C x 4C and its two gradients; for each of the two attentions over m landmarks 2 products forward and 5 backward, one of them
    the weights anew; 4 of m x m an iteration and 8 of their gradients.
    """
    L, m, D = tokens, LANDMARKS, DIM // HEADS
    x_LC, w_CK, g_LK = torch.randn(L, DIM), torch.randn(DIM, 4 * DIM), torch.randn(L, 4 * DIM)
    q_HLD, k_HmD, a_HLm = torch.randn(HEADS, L, D), torch.randn(HEADS, m, D), torch.randn(HEADS, L, m)
    z_Hmm = torch.randn(HEADS, m, m)

    def all_of_them() -> None:
        torch.mm(x_LC, w_CK)
        torch.mm(g_LK, w_CK.T)
        torch.mm(x_LC.T, g_LK)
        for _ in range(2 * 3):
            torch.bmm(q_HLD, k_HmD.mT)
        for _ in range(2 * 4):
            torch.bmm(a_HLm, k_HmD)
        for _ in range(12 * ITERATIONS):
            torch.bmm(z_Hmm, z_Hmm)

    return all_of_them


def timed(run: Callable[[], None], now: Clock) -> float:
    start = now()
    run()
    return now() - start


def measure(tokens: int, rounds: int, exact: bool, now: Clock) -> dict[str, list[float]]:
    """Seconds of each forward + backward, after one round that does not count."""
    torch.manual_seed(1)
    x_BLC, weight_BLC = torch.randn(2, 1, tokens, DIM)
    competitors, alone = layers(), products(tokens)
    if not exact:
        del competitors["exact (SDPA)"]
    times: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        found = {name: timed(step(layer, x_BLC, weight_BLC), now) for name, layer in competitors.items()}
        matmul.choose("auto", torch.device("cpu"))
        found |= {f"{n}, matmul=auto": timed(step(competitors[n], x_BLC, weight_BLC), now) for n in (OURS, PACKAGE)}
        found["its products alone"] = timed(alone, now)
        matmul.choose("torch", torch.device("cpu"))
        for name, took in found.items():
            times.setdefault(name, []).extend([took] * (turn > 0))
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[6000, 16384])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--target", type=float, default=2.0)
    parser.add_argument("--without-exact", action="store_true")
    parser.add_argument("--clock", action="store_true")
    args = parser.parse_args()
    now, of = (time.perf_counter, "the clock") if args.clock else (time.process_time, "the processors")
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; by {of}, {args.rounds} rounds of forward + backward"
    )
    print(matmul.choose("auto", torch.device("cpu")))
    matmul.choose("torch", torch.device("cpu"))
    good = True
    for tokens in args.tokens:
        times = measure(tokens, args.rounds, not args.without_exact, now)
        ratios = {}
        for name, took in times.items():
            ratios[name] = statistics.median(p / t for p, t in zip(times[PACKAGE], took, strict=True))
            one = statistics.median(took)
            if args.clock:
                ratios[name], one = min(times[PACKAGE]) / min(took), min(took)
            print(
                f"{tokens:7d} tokens  {name:32s} {one * 1e3:9.1f} ms   {ratios[name]:5.2f} x as fast as the package",
                flush=True,
            )
        good &= max(ratios[OURS], ratios[f"{OURS}, matmul=auto"]) >= args.target
    print(f"at least {args.target} times as fast as the package: {'yes' if good else 'NO'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())

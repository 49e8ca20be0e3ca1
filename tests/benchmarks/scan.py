"""The selective scan (numba's) against our chunked one in PyTorch and the PyPI package `mambapy` (parallel scan), forward +
backward, at the length of a genome.

    OMP_NUM_THREADS=1 python tests/benchmarks/scan.py [--length 60484] [--channels 64] [--rounds 5]

x of [1, length, channels] with 16 states, float32. Each measurement is a process of its own, so that its peak memory is its
own; the competitors alternate round by round, so that a busy machine slows both; medians and ratios are printed. Memory is
the peak over what the process holds before the first call (inputs among it), in runs that are not timed, where the allocator gives
back what is freed: by its own rules, which learn, the same scan was seen to take 114 and 196 MB. Also printed: the largest error against a
sequential scan in float64, relative to each tensor's largest value, and the slopes of time and memory between 4,000 and the
full length in log-log. Ends with status 1 when a target is missed: 20 x faster than mambapy and 6 x than the chunked scan, no
more memory than that, an error of 1e-5, a slope of time of 1.05.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from models.layers import scan
from models.layers.scan import selective_scan

STATES = 16
# glibc's: every block of this size is given back at once.
NOTHING_KEPT = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "1"}
SHORT = 4000
OVER_MAMBAPY, OVER_CHUNKED, ERROR, SLOPE = 20.0, 6.0, 1e-5, 1.05


def inputs(length: int, channels: int) -> list[Tensor]:
    """x, delta, A, B, C, D as a Mamba layer makes them at the start of training."""
    g = torch.Generator().manual_seed(0)
    low, high = math.log(1e-3), math.log(1e-1)
    delta = torch.exp(torch.empty(1, length, channels).uniform_(low, high, generator=g))
    A = -torch.arange(1.0, STATES + 1).repeat(channels, 1)
    B, C = (torch.randn(1, length, STATES, generator=g) for _ in range(2))
    x = torch.randn(1, length, channels, generator=g)
    return [t.requires_grad_() for t in (x, delta, A, B, C, torch.ones(channels))]


def theirs(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """mambapy's own selective scan, called without the layer around it."""
    from mambapy.mamba import MambaBlock

    class Given:
        pass

    return MambaBlock.selective_scan(Given(), x, delta, A, B, C, D)


def sequential(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dy: Tensor) -> list[Tensor]:
    """Output and gradients, one step after another there and back (all states are kept: some 500 MB in float64)."""
    L = x.shape[1]
    x, delta, B, C, dy = (t[0] for t in (x, delta, B, C, dy))
    a = torch.exp(delta[:, :, None] * A)
    h = torch.zeros(L + 1, *A.shape, dtype=x.dtype)
    for t in range(L):
        h[t + 1] = a[t] * h[t] + (delta[t] * x[t])[:, None] * B[t]
    y = (h[1:] @ C[:, :, None])[..., 0] + D * x
    g, (dx, ddelta, dB, dC), dA = torch.zeros_like(A), (torch.empty_like(t) for t in (x, delta, B, C)), 0
    for t in range(L - 1, -1, -1):
        g = g + dy[t][:, None] * C[t]
        q = g * a[t] * h[t]
        du = (g * B[t]).sum(1)
        dC[t], dB[t] = dy[t] @ h[t + 1], (delta[t] * x[t]) @ g
        dx[t], ddelta[t] = du * delta[t] + dy[t] * D, du * x[t] + (q * A).sum(1)
        dA = dA + q * delta[t][:, None]
        g = g * a[t]
    return [y, dx, ddelta, dA, dB, dC, (dy * x).sum(0)]


def measure(name: str, length: int, channels: int) -> dict[str, float]:
    """Seconds of the fastest of three calls, and bytes of the peak over the start."""
    function, given = theirs if name == "mambapy" else selective_scan, inputs(length, channels)
    scan.NUMBA_STATES = 1 << 62 if name == "chunked" else 0
    weights = torch.randn(1, length, channels, generator=torch.Generator().manual_seed(1))
    # Loads what the first call of anything loads, at a size that does not count.
    (function(*inputs(64, 8)).sum()).backward()
    start, taken = largest_from_now(), []
    for _ in range(3):
        begin = time.perf_counter()
        torch.autograd.grad(function(*given), given, weights)
        taken.append(time.perf_counter() - begin)
    return {"seconds": min(taken), "bytes": peak() - start}


def largest_from_now() -> int:
    """Bytes held now, from which `peak` counts: getrusage's would begin with the largest of the process that started this one."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The largest memory of this process in bytes."""
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def in_a_process(name: str, length: int, channels: int, env: dict[str, str] | None = None) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, "--length", str(length), "--channels", str(channels)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=env).stdout)


def error(length: int, channels: int) -> float:
    scan.NUMBA_STATES = 0
    given = inputs(length, channels)
    weights = torch.randn(1, length, channels, generator=torch.Generator().manual_seed(1))
    y = selective_scan(*given)
    found = [y.detach(), *torch.autograd.grad(y, given, weights)]
    exact = sequential(*(t.detach().double() for t in given), weights.double())
    return max(
        float((a.double().view_as(b) - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=60_484)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=("medpair", "chunked", "mambapy"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.length, args.channels)))
        return 0
    if not scan.numba_loads():
        print("numba is not installed here: pip install -e '.[numba]'")
        return 1
    cases = [("medpair", args.length), ("chunked", args.length), ("mambapy", args.length), ("medpair", SHORT)]
    found: dict[tuple[str, int], list[dict[str, float]]] = {c: [] for c in cases}
    for _ in range(args.rounds):
        for case in cases:
            found[case].append(in_a_process(*case, args.channels))
    tight = {**os.environ, **NOTHING_KEPT}
    middle = {
        case: {
            "seconds": statistics.median(r["seconds"] for r in rows),
            "bytes": in_a_process(*case, args.channels, tight)["bytes"],
        }
        for case, rows in found.items()
    }
    for (name, length), row in middle.items():
        print(f"{name:8s} {length:6d} x {args.channels}: {row['seconds']:7.3f} s  {row['bytes'] / 2**20:7.0f} MB")
    ours, chunked, other, short = (middle[c] for c in cases)
    speed, faster = other["seconds"] / ours["seconds"], chunked["seconds"] / ours["seconds"]
    slopes = {k: math.log(ours[k] / short[k]) / math.log(args.length / SHORT) for k in ours}
    gap = error(args.length, args.channels)
    print(f"{speed:.2f} x faster than mambapy in {ours['bytes'] / other['bytes']:.3f} of its memory, error {gap:.1e}")
    print(f"{faster:.2f} x faster than the chunked scan in {ours['bytes'] / chunked['bytes']:.2f} of its memory")
    print(f"slopes from {SHORT} to {args.length}: time {slopes['seconds']:.2f}, memory {slopes['bytes']:.2f}")
    fast = speed >= OVER_MAMBAPY and faster >= OVER_CHUNKED and slopes["seconds"] <= SLOPE
    good = fast and ours["bytes"] <= chunked["bytes"] and gap <= ERROR
    print(f"threads {torch.get_num_threads()}: {'all targets met' if good else 'A TARGET IS MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

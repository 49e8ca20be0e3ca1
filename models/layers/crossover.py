"""Up to how many tokens exact attention is faster than Nystrom attention on this machine: measured, never decided by itself.

Both are trained with, so which one a network has is a choice of its recipe (`attention` and `exact_tokens` of `gimp`), whatever the
machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

from models.layers.nystrom import LongAttention

SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
ENOUGH = 1.5
"""Times as long as Nystrom attention: with more tokens exact attention, which grows with their square, only falls further behind."""


class Pair(NamedTuple):
    """Seconds of a forward and a backward pass of one layer over one bag, the better of two each; of the processor on a CPU."""

    tokens: int
    nystrom: float
    exact: float


def pairs(device: torch.device, dim: int = 512, heads: int = 8, landmarks: int = 256) -> Iterator[Pair]:
    """At growing numbers of tokens, until exact attention is left behind; float32."""
    layers = [LongAttention(dim, heads, m).to(device) for m in (landmarks, None)]
    for tokens in SIZES:
        x_BLC = torch.zeros(1, tokens, dim, device=device)
        nystrom, exact = (min(_seconds(layer, x_BLC) for _ in range(2)) for layer in layers)
        yield Pair(tokens, nystrom, exact)
        if exact > ENOUGH * nystrom:
            return


def _seconds(layer: LongAttention, x_BLC: torch.Tensor) -> float:
    clock = _on_gpu if x_BLC.device.type == "cuda" else time.process_time
    began = clock()
    layer(x_BLC).sum().backward()
    return clock() - began


def _on_gpu() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def crossover(found: list[Pair]) -> int:
    """The largest number of tokens, of those measured, up to which exact attention was as fast at every size; 0 where at none."""
    most = 0
    for pair in found:
        if pair.exact > pair.nystrom:
            break
        most = pair.tokens
    return most

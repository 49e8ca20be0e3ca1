"""Where float32 matrix products of a CPU run: in the library that PyTorch chose, or in oneDNN's kernels, which are faster on some.

PyTorch's x86 builds take MKL, which leaves AVX-512 of AMD's processors unused. oneDNN, which every build has as well, uses it. The one
door to it is PyTorch's precision "medium", which allows products of rounded numbers where a processor has such units (AMX); so it is
opened where there are none, and only after products were compared with float64.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainer.config.shared import Matmul

EXACT = 1e-5
"""Largest error of a product that passes, of its largest value; float32 has 1e-6 here, numbers of 10 bits 3e-4."""
_in_onednn = False


def choose(matmul: Matmul, device: torch.device) -> str | None:
    """Sets where products of this process run from now on; what to say of it, None where that is what was said before."""
    global _in_onednn
    before, reason = _in_onednn, "" if matmul == "torch" else why_not(device.type)
    _in_onednn = matmul == "auto" and not reason
    _open(_in_onednn)
    if matmul == "torch":
        return None
    if reason:
        return f"matmul=auto: products run in PyTorch's own kernels ({reason})"
    return None if before else "matmul=auto: float32 products run in oneDNN (AVX-512, compared with float64)"


@functools.lru_cache
def why_not(device: str) -> str:
    """Why products do not run in oneDNN; "" where they do."""
    if device != "cpu":
        return "a GPU has its own"
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():
        return "this PyTorch lacks oneDNN or MKL"
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or _vendor() != "AuthenticAMD":
        return "oneDNN is faster on AMD processors with AVX-512 alone, and this is none"
    worst = within(largest_error)
    return "" if worst <= EXACT else f"oneDNN rounds its numbers here: an error of {worst:.0e}"


def within(measure: Callable[[], float]) -> float:
    """What is measured while products run in oneDNN."""
    _open(True)
    try:
        return measure()
    finally:
        _open(_in_onednn)


def largest_error() -> float:
    """Of products in all the forms that layers and their gradients have, against float64, of the largest value."""
    from_seed = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 192, 192, generator=from_seed) for _ in range(2))
    bias = torch.randn(192, generator=from_seed)
    forms: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        lambda x, y: x @ y,
        lambda x, y: x @ y.mT,
        lambda x, y: x.mT @ y,
        lambda x, y: x[0] @ y[0],
        lambda x, y: x[0].T @ y[0],
        lambda x, y: torch.nn.functional.linear(x[0], y[0], bias.to(x.dtype)),
    )
    return max(_error(form(a, b), form(a.double(), b.double())) for form in forms)


def speeds() -> tuple[float, float]:
    """GFLOP/s of a core in PyTorch's own kernels, and in oneDNN: a product of 1024 x 1024, the best of three each, processor time."""
    a = torch.randn(1024, 1024)

    def best() -> float:
        took = []
        for _ in range(4):
            began = time.process_time()
            torch.mm(a, a)
            took.append(time.process_time() - began)
        return 2 * 1.024**3 / min(took[1:])

    return best(), within(best)


def _error(found: Tensor, true: Tensor) -> float:
    return float((found - true).abs().max() / true.abs().max())


def _open(on: bool) -> None:
    torch.set_float32_matmul_precision("medium" if on else "highest")


def _vendor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "unknown")

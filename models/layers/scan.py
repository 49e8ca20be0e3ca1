"""Selective scan, the recurrence of Mamba (Gu and Dao 2023, eq. 2a-2b, algorithm 2): the one function for it.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t        y_t = C_t h_t + D x_t

Shape letters: B batch, L time, D channels, N states of a channel.
"""

from __future__ import annotations

import functools
import importlib
import warnings

import torch
from torch import Tensor

from compiled.loading import warn_unless
from models.layers.scan_chunked import ChunkedScan

# A scan of fewer states than this is done in PyTorch before numba has loaded its machine code.
NUMBA_STATES = 1 << 22


def selective_scan(x_BLD: Tensor, delta_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor, D_D: Tensor) -> Tensor:
    """y [B, L, D] of x's dtype. The states are float32 (float64 for float64) and never stored whole.

    Args:
        delta_BLD: step sizes, after the softplus.
        A_DN: negative decay rates.
    """
    runs = backend(x_BLD.device, x_BLD.dtype, x_BLD.numel() * A_DN.shape[1])
    if runs == "mamba_ssm":
        return _kernel_scan(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN, D_D)
    if runs == "numba":
        return _implementation(runs).apply(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN, D_D)
    y_BLD = _implementation(runs).apply(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN)
    return y_BLD + x_BLD * D_D.to(x_BLD.dtype)


def backend(device: torch.device, dtype: torch.dtype, states: int) -> str:
    """Which implementation runs for a scan of so many states (B L D N in all).

    "mamba_ssm" on CUDA when its kernel loads, else "triton" when it computes what it must; "numba" on a CPU when it loads,
    for scans that are worth its start; else "chunked", as for float64.
    """
    if device.type == "cuda":
        if mamba_ssm_loads(device.index or 0):
            return "mamba_ssm"
        return "triton" if dtype != torch.float64 and triton_runs(device) else "chunked"
    fits = device.type == "cpu" and dtype != torch.float64 and states >= NUMBA_STATES
    return "numba" if fits and numba_loads() else "chunked"


@functools.lru_cache
def mamba_ssm_loads(device_index: int) -> bool:
    """Whether mamba-ssm's kernel runs on this GPU: tried once, on a tiny input."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(1, 8, 8, device=f"cuda:{device_index}", requires_grad=True)
            _kernel_scan(x, x + 1, -torch.ones_like(x[0]), x, x, torch.ones_like(x[0, 0])).sum().backward()
    except Exception as e:
        # Whatever keeps a compiled kernel from loading (missing package, other CUDA, no operator) has the same remedy.
        warnings.warn(
            f"the selective scan runs without mamba-ssm, which does not work here ({type(e).__name__}: {e})",
            stacklevel=2,
        )
        return False
    return True


@functools.lru_cache
def triton_runs(device: torch.device) -> bool:
    """Whether the Triton kernels run on this GPU and give what PyTorch gives: tried once, on a short input, with gradients."""
    try:
        from models.layers.scan_triton import TritonScan

        with torch.inference_mode(False), torch.enable_grad():
            given = _short(device)
            found, expected = (_tried(scan, given) for scan in (TritonScan, ChunkedScan))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
    except Exception as e:
        # A missing package, another driver, a compiler that fails, or a result that differs: PyTorch computes it right.
        warnings.warn(
            f"the selective scan runs in PyTorch: Triton does not work here ({type(e).__name__}: {e})", stacklevel=2
        )
        return False
    return True


def _tried(scan: type[torch.autograd.Function], given: list[Tensor]) -> list[Tensor]:
    """Output and gradients."""
    y_BLD = scan.apply(*given)
    return [y_BLD, *torch.autograd.grad(y_BLD.square().sum(), given)]


def _short(device: torch.device, L: int = 70, D: int = 20, N: int = 4) -> list[Tensor]:
    """x, delta, A, B, C of one sample: steps and channels beyond a segment and a block of the kernels."""
    g = torch.Generator().manual_seed(0)
    x, delta, A, Bs, Cs = (torch.rand(s, generator=g) for s in ((1, L, D), (1, L, D), (D, N), (1, L, N), (1, L, N)))
    return [t.to(device).requires_grad_() for t in (x, delta, -4 * A, Bs, Cs)]


@functools.lru_cache
def numba_loads() -> bool:
    """Whether numba is installed and works with the other packages; why not is said once, unless it is simply not there."""
    return warn_unless("models.layers.scan_numba", "the selective scan runs in PyTorch")


def _kernel_scan(x_BLD: Tensor, delta_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor, D_D: Tensor) -> Tensor:
    scan = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    time_last = [t.transpose(1, 2).contiguous() for t in (x_BLD, delta_BLD, B_BLN, C_BLN)]
    y_BDL = scan(time_last[0], time_last[1], A_DN.float(), time_last[2], time_last[3], D_D.float())
    return y_BDL.transpose(1, 2)


def _implementation(name: str) -> type[torch.autograd.Function]:
    """Imported when first asked for: compilers take their time."""
    if name == "numba":
        from models.layers.scan_numba import NumbaScan

        return NumbaScan
    if name == "triton":
        from models.layers.scan_triton import TritonScan

        return TritonScan
    return ChunkedScan

"""Every kernel that attention and the selective scan may go to, against the same in float64 written out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from launch.doctor import unless
from models.layers import attention as layer
from models.layers import scan
from tests.gpu.outcome import Case, Found, NotRun, within

ERRORS = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest error over a tensor's largest value, of outputs and gradients; float32 without TF32."""
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if CUDA else torch.device("cpu")


def gap(found: list[Tensor], expected: list[Tensor]) -> float:
    """Of the tensor that differs most; NaN where one is not finite."""
    found, expected = ([t.detach() for t in ts] for ts in (found, expected))
    each = [
        float((f.double().cpu() - e).abs().max() / e.abs().max().clamp_min(1e-30))
        for f, e in zip(found, expected, strict=True)
    ]
    return max(each) if all(x == x for x in each) else float("nan")


def tried(of: Callable[..., Tensor], given: list[Tensor], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Output and the gradients of all inputs."""
    inputs = [t.detach().to(device, dtype).requires_grad_() for t in given]
    out = of(*inputs)
    return [out, *torch.autograd.grad(out.square().sum(), inputs)]


# ------------------------------------------------------------------------------------------------------------- attention


def written_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    logits = q @ k.mT * q.shape[-1] ** -0.5
    return (logits if bias is None else logits + bias).softmax(-1) @ v


def attention() -> dict[str, Case]:
    """PyTorch's kernels, also with a learned bias, whose gradient is looked at, too; xformers in half precision."""
    cases: dict[str, Case] = {"xformers": xformers}
    for dtype in [torch.float32, torch.bfloat16, *([torch.float16] if CUDA else [])]:
        name = str(dtype).removeprefix("torch.")
        cases |= {f"{name}": partial(attended, dtype, False), f"{name}, learned bias": partial(attended, dtype, True)}
    return cases


def attended(dtype: torch.dtype, biased: bool) -> Found:
    g = torch.Generator().manual_seed(0)
    given = [torch.randn(2, 4, 96, 64, generator=g, dtype=torch.float64) for _ in range(3)]
    given += [torch.randn(1, 4, 96, 96, generator=g, dtype=torch.float64)] * biased
    expected = tried(written_out, given, torch.device("cpu"), torch.float64)
    found = tried(layer.attention, given, DEVICE, dtype)
    return within(gap(found, expected), ERRORS[dtype], f"{layer.backend(DEVICE, dtype, 64, biased)}: error")


def xformers() -> Found:
    """Whether it loads in both half precisions where it is installed; what it computes is looked at beside."""
    if not CUDA:
        raise NotRun("CUDA only")
    if importlib.util.find_spec("xformers") is None:
        raise NotRun("not installed (pip install -e '.[cuda]')")
    for dtype in (torch.float16, torch.bfloat16):
        if why := unless(partial(layer.xformers_loads, 0, dtype, 64)):
            return Found("FAIL", why)
    return Found("pass", "loads")


# ------------------------------------------------------------------------------------------------------------------ scan


def step_by_step(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    h_BDN = x.new_zeros(len(x), *A.shape)
    out = []
    for t in range(x.shape[1]):
        h_BDN = torch.exp(delta[:, t, :, None] * A) * h_BDN + (delta[:, t] * x[:, t])[..., None] * B[:, t, None]
        out.append((h_BDN * C[:, t, None]).sum(-1))
    return torch.stack(out, 1)


IMPLEMENTATIONS = ("mamba_ssm", "triton", "numba", "chunked")


def scans() -> dict[str, Case]:
    """Each implementation that is here, and which of them a run would go to."""
    return {**{name: partial(scanned, name) for name in IMPLEMENTATIONS}, "dispatch": dispatched}


def scanned(name: str) -> Found:
    if why := missing(name):
        raise NotRun(why)
    if name == "mamba_ssm" and (why := unless(partial(scan.mamba_ssm_loads, 0))):
        return Found("FAIL", why)
    given = [t.double() for t in scan._short(torch.device("cpu"), 300, 72, 16)]
    expected = tried(step_by_step, given, torch.device("cpu"), torch.float64)
    return within(gap(tried(of(name), given, DEVICE, torch.float32), expected), 1e-3, "error")


def dispatched() -> Found:
    """A GPU that goes to PyTorch although a kernel is installed is not as it should be."""
    chosen = scan.backend(DEVICE, torch.float32, 10**8)
    wrong = chosen == "chunked" and any(not missing(name) for name in IMPLEMENTATIONS[: 2 if CUDA else 3])
    return Found("FAIL" if wrong else "pass", f"a long scan runs in {chosen}")


def missing(name: str) -> str:
    """Why an implementation cannot be tried here; "" where it can."""
    package = {"mamba_ssm": "mamba_ssm", "triton": "triton", "numba": "numba"}.get(name)
    if name in ("mamba_ssm", "triton") and not CUDA:
        return "CUDA only"
    if name == "numba" and CUDA:
        return "runs on a CPU"
    return "not installed (docs/install.md)" if package and importlib.util.find_spec(package) is None else ""


def of(name: str) -> Callable[..., Tensor]:
    """Without the term of D, which those that have it of their own get as 0."""
    whole = scan._kernel_scan if name == "mamba_ssm" else scan._implementation(name).apply
    if name in ("mamba_ssm", "numba"):
        return lambda x, d, A, B, C: whole(x, d, A, B, C, torch.zeros_like(x[0, 0]))
    return whole

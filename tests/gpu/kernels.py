"""Every kernel that attention and the selective scan may go to, against the same in float64 written out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from models.layers import attention as layer
from models.layers import scan
from tests.gpu.outcome import Outcome, within

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


def attention() -> Iterator[Outcome]:
    """PyTorch's kernels, also with a learned bias, whose gradient is looked at, too; xformers in half precision."""
    g = torch.Generator().manual_seed(0)
    qkv = [torch.randn(2, 4, 96, 64, generator=g, dtype=torch.float64) for _ in range(3)]
    bias = torch.randn(1, 4, 96, 96, generator=g, dtype=torch.float64)
    plain, biased = (tried(written_out, x, torch.device("cpu"), torch.float64) for x in (qkv, [*qkv, bias]))
    for dtype in [torch.float32, torch.bfloat16, *([torch.float16] if CUDA else [])]:
        name, bound = str(dtype).removeprefix("torch."), ERRORS[dtype]
        runs = layer.backend(DEVICE, dtype, 64, False)
        yield within(f"{runs} {name}", gap(tried(layer.attention, qkv, DEVICE, dtype), plain), bound, "error")
        found = tried(layer.attention, [*qkv, bias], DEVICE, dtype)
        yield within(f"sdpa, learned bias, {name}", gap(found, biased), bound, "error")
    if not CUDA:
        yield Outcome("xformers", "not run", "CUDA only")
    elif not layer.xformers_loads(0, torch.float16, 64):
        yield Outcome("xformers", "not run", "does not load: `python launch/doctor.py` says why")


# ------------------------------------------------------------------------------------------------------------------ scan


def step_by_step(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    h_BDN = x.new_zeros(len(x), *A.shape)
    out = []
    for t in range(x.shape[1]):
        h_BDN = torch.exp(delta[:, t, :, None] * A) * h_BDN + (delta[:, t] * x[:, t])[..., None] * B[:, t, None]
        out.append((h_BDN * C[:, t, None]).sum(-1))
    return torch.stack(out, 1)


def scans() -> Iterator[Outcome]:
    """Each implementation that is here, and which of them a run would go to."""
    given = [t.double() for t in scan._short(torch.device("cpu"), 300, 72, 16)]
    expected = tried(step_by_step, given, torch.device("cpu"), torch.float64)
    for name, why_not in missing().items():
        if why_not:
            yield Outcome(name, "not run", why_not)
        else:
            yield within(name, gap(tried(of(name), given, DEVICE, torch.float32), expected), 1e-3, "error")
    chosen = scan.backend(DEVICE, torch.float32, 10**8)
    yield Outcome("dispatch", "pass", f"a long scan runs in {chosen}")


def missing() -> dict[str, str]:
    """Why an implementation cannot be tried here; "" where it can."""
    gpu = "" if CUDA else "CUDA only"
    return {
        "mamba_ssm": gpu or ("" if scan.mamba_ssm_loads(0) else "does not load: `python launch/doctor.py` says why"),
        "triton": gpu or ("" if importlib.util.find_spec("triton") else "not installed"),
        "numba": "runs on a CPU" if CUDA else "" if scan.numba_loads() else "not installed (pip install -e '.[numba]')",
        "chunked": "",
    }


def of(name: str) -> Callable[..., Tensor]:
    """Without the term of D, which those that have it of their own get as 0."""
    whole = scan._kernel_scan if name == "mamba_ssm" else scan._implementation(name).apply
    if name in ("mamba_ssm", "numba"):
        return lambda x, d, A, B, C: whole(x, d, A, B, C, torch.zeros_like(x[0, 0]))
    return whole

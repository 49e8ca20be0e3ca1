"""The selective scan on a GPU as Triton kernels, for machines on which mamba-ssm is not built (Triton comes with PyTorch).

Time is cut into segments of S steps that are worked on side by side: three passes forward, three backward.

    1. each segment by itself: what it adds to a state that was zero, and by how much it lets a state decay;
    2. from segment to segment: the state before each one, h_{s+1} = P_s h_s + local_s (backward: from the last to the first);
    3. each segment again, from the right state on, by an associative scan over its steps (Blelloch 1990): a pair (a, b) stands
       for h -> a h + b, and two of them in a row for (a1 a2, a2 b1 + b2).

No pass writes the states of all steps. What a segment adds is a sum with weights exp(A x the time that is left), all of them at most
one: nothing is divided by a decay that may have become zero. Partial sums over channels (dB, dC) and over segments (dA) are written
apart and added afterwards, so that a run is the same to the last bit.

Never run on a GPU by us: compared with the reference under Triton's interpreter, and compiled for CUDA without one (docs/install.md).
On a GPU `models.layers.scan.triton_runs` compares it with the scan in PyTorch before its first use.

Shape letters: B batch, L time, D channels, N states of a channel; S steps of a segment, K segments, W channels of a block.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

S, W = 64, 16


@triton.jit
def _join(a1, b1, a2, b2):  # type: ignore[no-untyped-def]
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _place(L, D, S: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def]
    """This program's steps [S, 1] and channels [1, W], its sample, and its segment."""
    t = tl.program_id(0) * S + tl.arange(0, S)
    d = tl.program_id(1) * W + tl.arange(0, W)
    return t[:, None], d[None, :], tl.program_id(2).to(tl.int64), tl.program_id(0)


@triton.jit
def _tile(of, b, t, d, L, D, inside):  # type: ignore[no-untyped-def]
    """Rows t and columns d of `of` [B, L, D] for sample b as float32; zero where not inside."""
    return tl.load(of + (b * L + t) * D + d, mask=inside & (t >= 0) & (t < L) & (d < D), other=0.0).to(tl.float32)


@triton.jit
def _local(x, delta, A, Bs, Cs, dy, local, decay, L, D, K, N: tl.constexpr, S: tl.constexpr, W: tl.constexpr, BACK: tl.constexpr):  # type: ignore[no-untyped-def]  # fmt: skip
    """Pass 1. local, decay [B, K, N, D]: what a segment adds to the state after it (BACK: to the gradient before it), and its decay."""
    t, d, b, k = _place(L, D, S, W)
    row = t - k * S
    everywhere = d < D
    delta_SW = _tile(delta, b, t, d, L, D, everywhere)
    if BACK:
        # Decays of this step and all before it; the gradient of y_t reaches the state before the segment through them.
        time_SW = tl.cumsum(delta_SW, axis=0)
        in_SW = _tile(dy, b, t, d, L, D, everywhere)
    else:
        # Decays of the steps after this one: summed from the end, so that a short rest keeps its digits.
        time_SW = tl.cumsum(_tile(delta, b, t + 1, d, L, D, row + 1 < S), axis=0, reverse=True)
        in_SW = delta_SW * _tile(x, b, t, d, L, D, everywhere)
    whole_W = tl.sum(delta_SW, axis=0)[None, :]
    for n in range(N):
        A_W = tl.load(A + d * N + n, mask=d < D, other=0.0)
        if BACK:
            by_S = tl.load(Cs + (b * L + t) * N + n, mask=t < L, other=0.0).to(tl.float32)
        else:
            by_S = tl.load(Bs + (b * L + t) * N + n, mask=t < L, other=0.0).to(tl.float32)
        adds_W = tl.sum(in_SW * by_S * tl.exp(A_W * time_SW), axis=0)[None, :]
        at = ((b * K + k) * N + n) * D + d
        tl.store(local + at, adds_W, mask=d < D)
        tl.store(decay + at, tl.exp(A_W * whole_W), mask=d < D)


@triton.jit
def _carry(local, decay, K, M, W: tl.constexpr, BACK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Pass 2, in place: local [B, K, M] becomes the state before each segment (BACK: the gradient of the state after each)."""
    m = tl.program_id(0) * W + tl.arange(0, W)
    b = tl.program_id(1).to(tl.int64)
    state_W = tl.zeros((W,), tl.float32)
    for i in range(K):
        k = K - 1 - i if BACK else i
        at = (b * K + k) * M + m
        adds_W = tl.load(local + at, mask=m < M, other=0.0)
        decay_W = tl.load(decay + at, mask=m < M, other=0.0)
        tl.store(local + at, state_W, mask=m < M)
        state_W = decay_W * state_W + adds_W


@triton.jit
def _outputs(x, delta, A, Bs, Cs, starts, y, L, D, K, N: tl.constexpr, S: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def]
    """Pass 3 forward: y [B, L, D] from the state before each segment, starts [B, K, N, D]."""
    t, d, b, k = _place(L, D, S, W)
    first = t == k * S
    everywhere = d < D
    delta_SW = _tile(delta, b, t, d, L, D, everywhere)
    u_SW = delta_SW * _tile(x, b, t, d, L, D, everywhere)
    y_SW = tl.zeros((S, W), tl.float32)
    for n in range(N):
        A_W = tl.load(A + d * N + n, mask=d < D, other=0.0)
        B_S = tl.load(Bs + (b * L + t) * N + n, mask=t < L, other=0.0).to(tl.float32)
        C_S = tl.load(Cs + (b * L + t) * N + n, mask=t < L, other=0.0).to(tl.float32)
        start_W = tl.load(starts + ((b * K + k) * N + n) * D + d, mask=d < D, other=0.0)
        a_SW = tl.exp(delta_SW * A_W)
        in_SW = u_SW * B_S + tl.where(first, a_SW * start_W, 0.0)
        _, h_SW = tl.associative_scan((a_SW, in_SW), 0, _join)
        y_SW += C_S * h_SW
    tl.store(y + (b * L + t) * D + d, y_SW, mask=(t < L) & (d < D))


@triton.jit
def _gradients(x, delta, A, Bs, Cs, dy, starts, later, dx, ddelta, dA, dB, dC, L, D, K, N: tl.constexpr, S: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def]  # fmt: skip
    """Pass 3 backward: dx, ddelta [B, L, D]; dA [B, K, N, D] by segment; dB, dC [blocks of channels, B, L, N].

    With g_t = dLoss / dh_t = C_t dy_t + a_{t+1} g_{t+1} and a_t = exp(delta_t A):
    dC_t = dy_t h_t,  dB_t = g_t u_t,  du_t = g_t B_t for u = delta x,  d(delta_t A) = g_t a_t h_{t-1}.
    `later` [B, K, N, D] is a_{t+1} g_{t+1} of a segment's last step.
    """
    t, d, b, k = _place(L, D, S, W)
    row = t - k * S
    everywhere = d < D
    x_SW = _tile(x, b, t, d, L, D, everywhere)
    delta_SW = _tile(delta, b, t, d, L, D, everywhere)
    dy_SW = _tile(dy, b, t, d, L, D, everywhere)
    # The same one step earlier and one later, within the segment: a state before a step is a scan of its own, never a quotient.
    before_SW = _tile(delta, b, t - 1, d, L, D, row > 0)
    u_before_SW = before_SW * _tile(x, b, t - 1, d, L, D, row > 0)
    after_SW = _tile(delta, b, t + 1, d, L, D, row + 1 < S)
    u_SW = delta_SW * x_SW
    du_SW = tl.zeros((S, W), tl.float32)
    ddelta_SW = tl.zeros((S, W), tl.float32)
    of_block = (tl.program_id(1) * tl.num_programs(2) + b) * L
    for n in range(N):
        A_W = tl.load(A + d * N + n, mask=d < D, other=0.0)
        at = ((b * K + k) * N + n) * D + d
        start_W = tl.load(starts + at, mask=d < D, other=0.0)
        later_W = tl.load(later + at, mask=d < D, other=0.0)
        B_S = tl.load(Bs + (b * L + t) * N + n, mask=t < L, other=0.0).to(tl.float32)
        C_S = tl.load(Cs + (b * L + t) * N + n, mask=t < L, other=0.0).to(tl.float32)
        B_before_S = tl.load(Bs + (b * L + t - 1) * N + n, mask=(row > 0) & (t - 1 < L), other=0.0).to(tl.float32)
        a_SW = tl.exp(delta_SW * A_W)
        a_before_SW = tl.where(row > 0, tl.exp(before_SW * A_W), 0.0)
        in_before_SW = tl.where(row > 0, u_before_SW * B_before_S, start_W)
        _, h_before_SW = tl.associative_scan((a_before_SW, in_before_SW), 0, _join)
        h_SW = a_SW * h_before_SW + u_SW * B_S
        last = row + 1 == S
        a_after_SW = tl.where(last, 0.0, tl.exp(after_SW * A_W))
        out_SW = dy_SW * C_S + tl.where(last, later_W, 0.0)
        _, g_SW = tl.associative_scan((a_after_SW, out_SW), 0, _join, reverse=True)
        du_SW += g_SW * B_S
        q_SW = g_SW * a_SW * h_before_SW
        ddelta_SW += q_SW * A_W
        tl.store(dA + at, tl.sum(q_SW * delta_SW, axis=0)[None, :], mask=d < D)
        tl.store(dB + (of_block + t) * N + n, tl.sum(g_SW * u_SW, axis=1)[:, None], mask=t < L)
        tl.store(dC + (of_block + t) * N + n, tl.sum(dy_SW * h_SW, axis=1)[:, None], mask=t < L)
    tl.store(dx + (b * L + t) * D + d, du_SW * delta_SW, mask=(t < L) & (d < D))
    tl.store(ddelta + (b * L + t) * D + d, ddelta_SW + du_SW * x_SW, mask=(t < L) & (d < D))


# ------------------------------------------------------------------------------------------------------- in autograd


class Kept(Protocol):
    """What `TritonScan` keeps for its backward: the inputs, then the states."""

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


def _carried(given: tuple[Tensor, ...], dy_BLD: Tensor | None = None) -> Tensor:
    """Passes 1 and 2: the state before each segment [B, K, N, D], or, with dy, the gradient that comes from after each."""
    x, _, A_DN, _, _ = given
    (B, L, D), N = x.shape, A_DN.shape[1]
    K = -(-L // S)
    local_BKND, decay_BKND = (torch.empty(B, K, N, D, device=x.device) for _ in range(2))
    back: dict[str, Any] = {"BACK": dy_BLD is not None}
    _local[_grid(x)](*given, x if dy_BLD is None else dy_BLD, local_BKND, decay_BKND, L, D, K, N=N, S=S, W=W, **back)
    _carry[(-(-N * D // 128), B)](local_BKND, decay_BKND, K, N * D, W=128, **back)
    return local_BKND


def _grid(x_BLD: Tensor) -> tuple[int, int, int]:
    B, L, D = x_BLD.shape
    return -(-L // S), -(-D // W), B


class TritonScan(torch.autograd.Function):
    """y [B, L, D] without the D x of `selective_scan`; keeps the state at every segment's start."""

    @staticmethod
    def forward(ctx: Kept, x_BLD: Tensor, delta_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> Tensor:
        given = _plain(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN)
        (B, L, D), N = x_BLD.shape, A_DN.shape[1]
        y_BLD = torch.empty(B, L, D, device=x_BLD.device, dtype=x_BLD.dtype)
        with torch.cuda.device_of(x_BLD):
            starts_BKND = _carried(given)
            _outputs[_grid(x_BLD)](*given, starts_BKND, y_BLD, L, D, starts_BKND.shape[1], N=N, S=S, W=W)
        ctx.save_for_backward(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN, starts_BKND)
        return y_BLD

    @staticmethod
    @once_differentiable
    def backward(ctx: Kept, dy_BLD: Tensor) -> tuple[Tensor, ...]:
        # Asked for once: recomputed blocks give what they saved a single time.
        *inputs, starts_BKND = ctx.saved_tensors
        given = _plain(*inputs)
        x = given[0]
        (B, L, D), (_, K, N, _) = x.shape, starts_BKND.shape
        dy = dy_BLD.contiguous()
        dx, ddelta = (torch.empty(B, L, D, device=x.device) for _ in range(2))
        dA_BKND = torch.empty_like(starts_BKND)
        dB, dC = (torch.empty(_grid(x)[1], B, L, N, device=x.device) for _ in range(2))
        with torch.cuda.device_of(x):
            later_BKND = _carried(given, dy)
            into = (dx, ddelta, dA_BKND, dB, dC)
            _gradients[_grid(x)](*given, dy, starts_BKND, later_BKND, *into, L, D, K, N=N, S=S, W=W)
        # In float64: a million terms of one sign would lose digits otherwise.
        dA_DN = dA_BKND.sum((0, 1), dtype=torch.float64).T
        found = (dx, ddelta, dA_DN, dB.sum(0), dC.sum(0))
        return tuple(g.to(t.dtype) for g, t in zip(found, inputs, strict=True))


def _plain(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Contiguous, as the kernels reckon with; A, which decides how long a state lasts, in float32."""
    x, delta, A_DN, Bs, Cs = tensors
    return x.contiguous(), delta.contiguous(), A_DN.float().contiguous(), Bs.contiguous(), Cs.contiguous()

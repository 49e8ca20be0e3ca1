"""The selective scan in PyTorch, on any device: the form that runs where no kernel does.

Shape letters: B batch, L time, D channels, N states of a channel; S steps of a segment, T = S + 1 rows,
M = B x N x D.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of one [S, B, N, D] tensor that stay in a core's cache (4 bytes each), and, on a GPU, that fill it.
CPU_SEGMENT, CUDA_SEGMENT = 1 << 17, 1 << 24
# A scan of more rows than this, each of at most so many elements (or on a GPU), joins its rows in pairs: see `scan_`.
FEW_ROWS, SMALL_ROW = 8, 4096


def segment_steps(length: int, batch: int, channels: int, states: int, device: torch.device) -> int:
    """Steps whose states are held at once: as many as the cache (or a GPU's appetite) takes, whatever the length."""
    room = CUDA_SEGMENT if device.type == "cuda" else CPU_SEGMENT
    return max(8, min(length, room // max(1, batch * channels * states)))


def scan_(h_TM: Tensor, a_SM: Tensor) -> Tensor:
    """In place h[t + 1] += a[t] * h[t] from the first row to the last, for S + 1 rows; returns h.

    Where a step is cheaper than its call, rows are first joined in pairs (h[t + 2] from h[t] by a[t] a[t + 1]), so that
    the recursion takes log2 S rounds of three calls for 1.5 more operations an element.
    """
    if not _pairwise(h_TM):
        rows = h_TM.unbind(0)
        for before, now, a_M in zip(rows, rows[1:], a_SM.unbind(0), strict=False):
            now.addcmul_(a_M, before)
        return h_TM
    odd_TM = h_TM[1::2]
    odd_TM.addcmul_(a_SM[::2], h_TM[: 2 * len(odd_TM) : 2])
    scan_(odd_TM, a_SM[1 : 2 * len(odd_TM) - 2 : 2] * a_SM[2 : 2 * len(odd_TM) - 1 : 2])
    h_TM[2::2].addcmul_(a_SM[1::2], odd_TM[: (len(h_TM) - 1) // 2])
    return h_TM


def reverse_scan_(g_TM: Tensor, a_SM: Tensor) -> Tensor:
    """In place g[t] += a[t] * g[t + 1] from the last row to the first, for S + 1 rows; returns g."""
    if not _pairwise(g_TM):
        rows, decays = g_TM.unbind(0), a_SM.unbind(0)
        for t in range(len(rows) - 2, -1, -1):
            rows[t].addcmul_(decays[t], rows[t + 1])
        return g_TM
    even_TM, odd_TM = g_TM[::2], g_TM[1::2]
    even_TM[: len(odd_TM)].addcmul_(a_SM[::2], odd_TM)
    joined = len(even_TM) - 1
    reverse_scan_(even_TM, a_SM[: 2 * joined : 2] * a_SM[1 : 2 * joined : 2])
    odd_TM[:joined].addcmul_(a_SM[1 : 2 * joined : 2], even_TM[1:])
    return g_TM


def _pairwise(rows_TM: Tensor) -> bool:
    return len(rows_TM) > FEW_ROWS and (rows_TM.device.type == "cuda" or rows_TM[0].numel() <= SMALL_ROW)


class _Steps(Protocol):
    """What `ChunkedScan` keeps for its backward: tensors, and the steps of a segment."""

    steps: int

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class ChunkedScan(torch.autograd.Function):
    """The scan segment by segment. Forward keeps the state at each segment's start; backward recomputes the rest.

    Inside, time comes first and channels last ([S, B, N, D]): a step is then one contiguous block.
    """

    @staticmethod
    def forward(
        ctx: _Steps,
        x_BLD: Tensor,
        delta_BLD: Tensor,
        A_DN: Tensor,
        B_BLN: Tensor,
        C_BLN: Tensor,
        steps: int | None = None,
    ) -> Tensor:
        B, L, D = x_BLD.shape
        work = torch.promote_types(x_BLD.dtype, torch.float32)
        ctx.steps = steps or segment_steps(L, B, D, A_DN.shape[1], x_BLD.device)
        A_ND = A_DN.to(work).T.contiguous()
        y_LBD = x_BLD.new_empty(L, B, D)
        state_BND = torch.zeros(B, *A_ND.shape, dtype=work, device=x_BLD.device)
        starts = []
        for s in range(0, L, ctx.steps):
            starts.append(state_BND)
            x, delta, Bs, Cs = _segment(s, ctx.steps, work, x_BLD, delta_BLD, B_BLN, C_BLN)
            h, _ = _states(state_BND, x * delta, delta, A_ND, Bs)
            y_LBD[s : s + len(x)] = (Cs[:, :, None] @ h[1:])[:, :, 0]
            state_BND = h[-1].clone()
        ctx.save_for_backward(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN, torch.stack(starts))
        return y_LBD.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Steps, dy_BLD: Tensor) -> tuple[Tensor | None, ...]:
        x_BLD, delta_BLD, A_DN, B_BLN, C_BLN, starts = ctx.saved_tensors
        work = starts.dtype
        A_ND = A_DN.to(work).T.contiguous()
        grads = [
            torch.empty_like(t.transpose(0, 1), memory_format=torch.contiguous_format)
            for t in (x_BLD, delta_BLD, B_BLN, C_BLN)
        ]
        dA_ND = torch.zeros_like(A_ND)
        later_BND = torch.zeros_like(starts[0])
        for i in reversed(range(len(starts))):
            s = i * ctx.steps
            parts = _segment(s, ctx.steps, work, x_BLD, delta_BLD, B_BLN, C_BLN, dy_BLD)
            *each, dA, later_BND = _segment_backward(starts[i], later_BND, A_ND, *parts)
            dA_ND += dA
            for whole, part in zip(grads, each, strict=True):
                whole[s : s + len(part)] = part
        dx, ddelta, dB, dC = (g.transpose(0, 1) for g in grads)
        return dx, ddelta, dA_ND.T.to(A_DN.dtype), dB, dC, None


def _segment(start: int, steps: int, work: torch.dtype, *tensors_BL: Tensor) -> list[Tensor]:
    """Steps start .. start + steps of each tensor [B, L, ...] as [S, B, ...], contiguous, in the working dtype."""
    return [t[:, start : start + steps].transpose(0, 1).to(work).contiguous() for t in tensors_BL]


def _states(before: Tensor, u_SBD: Tensor, delta_SBD: Tensor, A_ND: Tensor, B_SBN: Tensor) -> tuple[Tensor, Tensor]:
    """The states before and after every step, [S + 1, B, N, D], and the decays exp(delta A), [S, B, N, D]."""
    a_SBND = (delta_SBD[:, :, None] * A_ND).exp_()
    h_TBND = a_SBND.new_empty(len(a_SBND) + 1, *before.shape)
    h_TBND[0] = before
    torch.mul(u_SBD[:, :, None], B_SBN[..., None], out=h_TBND[1:])
    return scan_(h_TBND, a_SBND), a_SBND


def _segment_backward(
    before: Tensor, later: Tensor, A_ND: Tensor, x: Tensor, delta: Tensor, Bs: Tensor, Cs: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    """Gradients (x, delta, B, C, A) of one segment, and what flows back into the state before it.

    With g_t = dLoss / dh_t = C_t dy_t + a_{t+1} g_{t+1} and a_t = exp(delta_t A):
    dC_t = dy_t h_t,  dB_t = g_t u_t,  du_t = g_t B_t for u = delta x,  d(delta_t A) = g_t a_t h_{t-1}.
    """
    u = x * delta
    h, a = _states(before, u, delta, A_ND, Bs)
    dC = (h[1:] @ dy[..., None])[..., 0]
    g = torch.empty_like(a)
    torch.mul(dy[:, :, None], Cs[..., None], out=g)
    g[-1] += later
    reverse_scan_(g, a[1:])
    dB = (g @ u[..., None])[..., 0]
    du = (Bs[:, :, None] @ g)[:, :, 0]
    earlier = g[0] * a[0]
    q = g.mul_(a).mul_(h[:-1])
    ddelta = torch.mul(q, A_ND, out=a).sum(2).addcmul_(du, x)
    dA = q.mul_(delta[:, :, None]).sum((0, 1))
    return du * delta, ddelta, dB, dC, dA, earlier

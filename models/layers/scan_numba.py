"""The selective scan on a CPU, compiled by numba (whose wheel brings its own LLVM: the user's machine needs no compiler).

Several channels go side by side through one state after another, a segment of steps at a time, so that all of a segment stays
in a core's cache and every innermost loop runs over neighbours in memory. The backward pass makes a segment's states again
from the state before it. Threads take blocks of channels; each adds up the gradients of B and C, which belong to all channels,
for itself. Which thread takes which block is fixed, so that a run with as many threads is the same to the last bit.

Long because: each pass is one nest of loops, which the compiler must see whole to know that rows of the scratch do not overlap.

Shape letters: B batch, L time, D channels, N states of a channel; S steps of a segment, W channels of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor
from torch.autograd.function import once_differentiable

Floats = npt.NDArray[np.float32]
F = TypeVar("F", bound=Callable[..., object])

S, W = 64, 64
MATRIX, CUBE = "float32[:, :]", "float32[:, :, :]"
f32 = np.float32
ZERO, ONE, LN2 = f32(0), f32(1), f32(math.log(2))
# Added to a float, leaves its nearest integer in the lowest bits: 1.5 x 2^23.
TO_INTEGER = f32(3 << 22)
LOWEST, HIGHEST = f32(-127), f32(128)
# (2^r - 1) / r over -1/2 .. 1/2 by a polynomial through the Chebyshev nodes, which errs by less than a tenth of an ulp.
_QUOTIENT = Chebyshev.interpolate(lambda r: np.expm1(r * math.log(2)) / r, 5, domain=[-0.5, 0.5])
C1, C2, C3, C4, C5, C6 = _QUOTIENT.convert(kind=Polynomial, domain=[-1, 1]).coef.astype(np.float32)


def compiled(signature: str, flags: set[str]) -> Callable[[F], F]:
    """numba's decorator: compiled once for arrays of any strides, the machine code kept on disk where there is a folder for it."""

    def compile_(function: F) -> F:
        try:
            return cast(F, njit(signature, nogil=True, cache=True, fastmath=flags)(function))
        except RuntimeError:
            # Neither this folder nor the user's cache can be written: compiled anew in every process.
            return cast(F, njit(signature, nogil=True, fastmath=flags)(function))

    return compile_


def _as_integer(context: object, x: object) -> tuple[object, Callable[..., object]]:
    return types.int32(types.float32), lambda _, builder, __, args: builder.bitcast(args[0], ir.IntType(32))


def _as_float(context: object, x: object) -> tuple[object, Callable[..., object]]:
    return types.float32(types.int32), lambda _, builder, __, args: builder.bitcast(args[0], ir.FloatType())


# The bits of a number read as another type, on values inside the loop.
bits: Callable[..., Any] = intrinsic(_as_integer)
from_bits: Callable[..., Any] = intrinsic(_as_float)


# Products and sums may be fused; nothing here may be reordered, or adding and taking away TO_INTEGER would cancel.
@compiled("float32(float32)", {"contract"})
def exp2(z: f32) -> f32:
    """2^z for z <= 128 with an error of less than an ulp; 0 from -127 down, NaN for NaN.

    z is split into its nearest integer and a rest in -1/2 .. 1/2. The nearest one, not the one below: a decay that is almost 1
    (z near 0) is then 1 plus a small polynomial. Split downwards it would be 2^-1 times a polynomial near 2, an error that is the
    same in each of the thousands of steps which such a state remembers.
    """
    z = LOWEST if z < LOWEST else z
    z = HIGHEST if z > HIGHEST else z
    shifted = z + TO_INTEGER
    r = z - (shifted - TO_INTEGER)
    power = from_bits(np.int32((bits(shifted) + np.int32(127)) << np.int32(23)))
    return (ONE + r * (C1 + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * C6)))))) * power


# Rows of the scratch, each of W channels: one array of known shape, so that the compiler sees which rows can't overlap.
X, DELTA, U, Y = 0, S, 2 * S, 3 * S
FORWARD_ROWS = 4 * S
DY, A, DU, DDELTA, H = 3 * S, 4 * S, 5 * S, 6 * S, 7 * S
BACKWARD_ROWS = 8 * S + 1


@compiled(f"void({', '.join([MATRIX] * 6)}, {CUBE}, int64)", {"contract"})
def forward_block(
    x: Floats, delta: Floats, rate: Floats, Bs: Floats, Cs: Floats, y: Floats, starts: Floats, first: int
) -> None:
    """Channels first .. first + W of y [L, D] and of the states before each segment, starts [L / S, N, D].

    rate: A in powers of two, [N, D]; x, delta [L, D], Bs, Cs [L, N].
    """
    L, N, width = x.shape[0], rate.shape[0], min(W, x.shape[1] - first)
    w = np.zeros((FORWARD_ROWS, W), np.float32)
    h, k = np.zeros((N, W), np.float32), np.zeros((N, W), np.float32)
    k[:, :width] = rate[:, first : first + width]
    for s in range(0, L, S):
        steps = min(S, L - s)
        starts[s // S, :, first : first + width] = h[:, :width]
        for t in range(steps):
            for d in range(width):
                w[X + t, d], w[DELTA + t, d] = x[s + t, first + d], delta[s + t, first + d]
        for t in range(steps):
            for d in range(W):
                w[U + t, d] = w[DELTA + t, d] * w[X + t, d]
                w[Y + t, d] = ZERO
        for n in range(N):
            for t in range(steps):
                b, c = Bs[s + t, n], Cs[s + t, n]
                for d in range(W):
                    now = exp2(w[DELTA + t, d] * k[n, d]) * h[n, d] + b * w[U + t, d]
                    h[n, d] = now
                    w[Y + t, d] += c * now
        for t in range(steps):
            for d in range(width):
                y[s + t, first + d] = w[Y + t, d]


# Sums over channels may be reordered here, or they could not be taken side by side.
@compiled(
    f"void({', '.join([MATRIX] * 5)}, {CUBE}, {', '.join([MATRIX] * 3)}, float64[:, :], {MATRIX}, {MATRIX}, int64)",
    {"contract", "reassoc", "nsz"},
)
def backward_block(
    x: Floats,
    delta: Floats,
    rate: Floats,
    Bs: Floats,
    Cs: Floats,
    starts: Floats,
    dy: Floats,
    dx: Floats,
    ddelta: Floats,
    drate: npt.NDArray[np.float64],
    dB: Floats,
    dC: Floats,
    first: int,
) -> None:
    """The gradients of one block's channels; dB and dC [L, N] are added to, drate [N, D] is that of A (not of `rate`).

    With g_t = dLoss / dh_t = C_t dy_t + a_{t+1} g_{t+1} and a_t = exp(delta_t A):
    dC_t = dy_t h_t,  dB_t = g_t u_t,  du_t = g_t B_t for u = delta x,  d(delta_t A) = g_t a_t h_{t-1}.
    """
    L, N, width = x.shape[0], rate.shape[0], min(W, x.shape[1] - first)
    w = np.zeros((BACKWARD_ROWS, W), np.float32)
    g, k, dk = np.zeros((N, W), np.float32), np.zeros((N, W), np.float32), np.zeros((N, W), np.float32)
    k[:, :width] = rate[:, first : first + width]
    for i in range((L - 1) // S, -1, -1):
        s = i * S
        steps = min(S, L - s)
        for t in range(steps):
            for d in range(width):
                w[X + t, d], w[DELTA + t, d] = x[s + t, first + d], delta[s + t, first + d]
                w[DY + t, d] = dy[s + t, first + d]
        for t in range(steps):
            for d in range(W):
                w[U + t, d] = w[DELTA + t, d] * w[X + t, d]
                w[DU + t, d] = ZERO
                w[DDELTA + t, d] = ZERO
        for n in range(N):
            w[H, :width] = starts[i, n, first : first + width]
            for t in range(steps):
                b = Bs[s + t, n]
                for d in range(W):
                    a = exp2(w[DELTA + t, d] * k[n, d])
                    w[A + t, d] = a
                    w[H + t + 1, d] = a * w[H + t, d] + b * w[U + t, d]
            for t in range(steps - 1, -1, -1):
                b, c = Bs[s + t, n], Cs[s + t, n]
                along_b, along_c = ZERO, ZERO
                for d in range(W):
                    dyd = w[DY + t, d]
                    gd = g[n, d] + dyd * c
                    along_c += dyd * w[H + t + 1, d]
                    along_b += gd * w[U + t, d]
                    w[DU + t, d] += gd * b
                    gd *= w[A + t, d]
                    g[n, d] = gd
                    q = gd * w[H + t, d]
                    w[DDELTA + t, d] += q * k[n, d]
                    dk[n, d] += q * w[DELTA + t, d]
                dB[s + t, n] += along_b
                dC[s + t, n] += along_c
        for t in range(steps):
            for d in range(width):
                du = w[DU + t, d]
                ddelta[s + t, first + d] = w[DDELTA + t, d] * LN2 + du * w[X + t, d]
                dx[s + t, first + d] = du * w[DELTA + t, d]
        # A segment's sum in float32, their sum in float64: a million terms of one sign would lose digits otherwise.
        for n in range(N):
            for d in range(width):
                drate[n, first + d] += dk[n, d]
            dk[n] = ZERO


# ------------------------------------------------------------------------------------------------------- in autograd


def threads_for(batch: int, channels: int) -> int:
    return min(torch.get_num_threads(), batch * -(-channels // W))


def each_block(work: Callable[[int, int, int], None], batch: int, channels: int) -> None:
    """work(thread, sample, first channel) for every block of channels of every sample."""
    blocks = [(b, first) for b in range(batch) for first in range(0, channels, W)]
    threads = threads_for(batch, channels)

    def turn(thread: int) -> None:
        for b, first in blocks[thread::threads]:
            work(thread, b, first)

    if threads == 1:
        turn(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(turn, range(threads)))


def arrays(*tensors: Tensor) -> list[Floats]:
    return [t.detach().float().numpy() for t in tensors]


class Kept(Protocol):
    """What `NumbaScan` keeps for its backward: the inputs, then the states."""

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class NumbaScan(torch.autograd.Function):
    """y [B, L, D] without the D x of `selective_scan`; keeps the state at every segment's start."""

    @staticmethod
    def forward(ctx: Kept, x_BLD: Tensor, delta_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        x, delta, Bs, Cs = arrays(x_BLD, delta_BLD, B_BLN, C_BLN)
        rate = _rate(A_DN)
        y_BLD = torch.empty(B, L, D)
        starts = torch.empty(B, -(-L // S), *rate.shape)
        y, at = y_BLD.numpy(), starts.numpy()
        each_block(lambda _, b, d: forward_block(x[b], delta[b], rate, Bs[b], Cs[b], y[b], at[b], d), B, D)
        ctx.save_for_backward(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN, starts)
        return y_BLD.to(x_BLD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Kept, dy_BLD: Tensor) -> tuple[Tensor, ...]:
        # Asked for once: recomputed blocks give what they saved a single time.
        *given, starts_BTND = ctx.saved_tensors
        x, delta, Bs, Cs, starts, dy = arrays(*given[:2], *given[3:], starts_BTND, dy_BLD)
        rate = _rate(given[2])
        B, _, D = x.shape
        dx, ddelta = np.empty_like(x), np.empty_like(delta)
        drate = np.zeros((B, *rate.shape))
        dB, dC = (np.zeros((threads_for(B, D), *Bs.shape), np.float32) for _ in range(2))

        def work(thread: int, b: int, first: int) -> None:
            into = (dx[b], ddelta[b], drate[b], dB[thread, b], dC[thread, b])
            backward_block(x[b], delta[b], rate, Bs[b], Cs[b], starts[b], dy[b], *into, first)

        each_block(work, B, D)
        # In place: a copy would be the largest thing in memory after the gradients themselves.
        for sums in (dB, dC):
            for other in sums[1:]:
                sums[0] += other
        found = (dx, ddelta, drate.sum(0).T, dB[0], dC[0])
        return tuple(torch.from_numpy(g).to(t.dtype) for g, t in zip(found, given, strict=True))


def _rate(A_DN: Tensor) -> Floats:
    """A in powers of two, [N, D]: rounded once."""
    return (A_DN.detach().double().T.numpy() / math.log(2)).astype(np.float32)

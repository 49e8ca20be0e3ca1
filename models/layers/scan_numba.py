"""The selective scan on a CPU, compiled by numba (whose wheel brings its own LLVM: the user's machine needs no compiler).

A block of channels, two registers wide, goes through one state after another, a segment of steps at a time: the state stays in
registers, and all of a segment in a core's cache. The backward pass makes a segment's states again from the state before it.
Threads take blocks; each adds up the gradients of B and C, which belong to all channels, for itself. Which thread takes which
block is fixed, so that a run with as many threads is the same to the last bit.

Long because: each pass is one nest of loops over the same registers.

Shape letters: B batch, L time, D channels, N states of a channel; S steps of a segment, W channels of a block, K blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from compiled.kernel import kernel
from models.layers.simd import Register, V, at_least, at_most, load, power, spread, store, sums

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., object])

S, W = 64, 2 * V
ROW, DOUBLES = "float32[::1]", "float64[::1]"
f32 = np.float32
ZERO, ONE, LN2 = f32(0), f32(1), f32(math.log(2))
# Added to a float, leaves its nearest integer in the lowest bits: 1.5 x 2^23.
TO_INTEGER = f32(3 << 22)
LOWEST, HIGHEST = f32(-127), f32(128)
# (2^r - 1) / r over -1/2 .. 1/2 by a polynomial through the Chebyshev nodes, which errs by less than a tenth of an ulp.
_QUOTIENT = Chebyshev.interpolate(lambda r: np.expm1(r * math.log(2)) / r, 5, domain=[-0.5, 0.5])
C1, C2, C3, C4, C5, C6 = _QUOTIENT.convert(kind=Polynomial, domain=[-1, 1]).coef.astype(np.float32)


def compiled(signature: str | None = None) -> Callable[[F], F]:
    """Products and sums may be fused; nothing may be reordered, or adding and taking away TO_INTEGER would cancel."""
    return kernel(signature, unkept=True, fastmath={"contract"}, error_model="numpy")


@compiled()
def exp2(z: Register) -> Register:
    """2^z of a vector for z <= 128 with an error of less than an ulp; 0 from -127 down, NaN for NaN.

    z is split into its nearest integer and a rest in -1/2 .. 1/2. The nearest one, not the one below: a decay that is almost 1
    (z near 0) is then 1 plus a small polynomial. Split downwards it would be 2^-1 times a polynomial near 2, an error that is the
    same in each of the thousands of steps which such a state remembers.
    """
    z = at_most(at_least(z, spread(LOWEST)), spread(HIGHEST))
    shifted = z + spread(TO_INTEGER)
    r = z - (shifted - spread(TO_INTEGER))
    q = spread(C3) + r * (spread(C4) + r * (spread(C5) + r * spread(C6)))
    return (spread(ONE) + r * (spread(C1) + r * (spread(C2) + r * q))) * power(shifted)


@compiled(f"{ROW}(int64)")
def scratch(size: int) -> Floats:
    """Zeros that begin where a line of the cache begins: a register that lies across two costs twice."""
    room = np.zeros(size + 16, np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + size]


# Parts of the scratch of a segment, each of S x W numbers.
PART = S * W
DELTA, U, Y = 0, PART, 2 * PART
DY, DU, DDELTA, A, H = 2 * PART, 3 * PART, 4 * PART, 5 * PART, 6 * PART


@compiled(f"void({', '.join([ROW] * 8)}, int64, int64)")
def forward_block(
    x: Floats,
    delta: Floats,
    rate: Floats,
    skip: Floats,
    Bs: Floats,
    Cs: Floats,
    y: Floats,
    starts: Floats,
    D: int,
    first: int,
) -> None:
    """Channels first .. first + W of y [L, D] and of the states before each segment, starts [L / S, N, W].

    rate: A in powers of two, [N, W]; skip: D of the equation, [W]; x, delta [L, D], Bs, Cs [L, N]; all flat, D a multiple of W.
    """
    L, N = len(x) // D, len(rate) // W
    w, h = scratch(3 * PART), scratch(N * W)
    for s in range(0, L, S):
        steps = min(S, L - s)
        for t in range(steps):
            for v in range(0, W, V):
                here, there = t * W + v, (s + t) * D + first + v
                dt, xt = load(delta, there), load(x, there)
                store(w, DELTA + here, dt)
                store(w, U + here, dt * xt)
                store(w, Y + here, xt * load(skip, v))
        for n in range(N):
            i, j = n * W, n * W + V
            k0, k1, h0, h1 = load(rate, i), load(rate, j), load(h, i), load(h, j)
            kept = s // S * N * W
            store(starts, kept + i, h0)
            store(starts, kept + j, h1)
            for t in range(steps):
                b, c = spread(Bs[(s + t) * N + n]), spread(Cs[(s + t) * N + n])
                p, q = t * W, t * W + V
                # In this order the product with h is the one that is fused: the only step that waits for the one before.
                h0 = b * load(w, U + p) + exp2(load(w, DELTA + p) * k0) * h0
                h1 = b * load(w, U + q) + exp2(load(w, DELTA + q) * k1) * h1
                store(w, Y + p, load(w, Y + p) + c * h0)
                store(w, Y + q, load(w, Y + q) + c * h1)
            store(h, i, h0)
            store(h, j, h1)
        for t in range(steps):
            for v in range(0, W, V):
                store(y, (s + t) * D + first + v, load(w, Y + t * W + v))


@compiled(f"void({', '.join([ROW] * 10)}, {DOUBLES}, {DOUBLES}, {ROW}, {ROW}, int64, int64)")
def backward_block(
    x: Floats,
    delta: Floats,
    rate: Floats,
    skip: Floats,
    Bs: Floats,
    Cs: Floats,
    starts: Floats,
    dy: Floats,
    dx: Floats,
    ddelta: Floats,
    drate: Doubles,
    dskip: Doubles,
    dB: Floats,
    dC: Floats,
    D: int,
    first: int,
) -> None:
    """The gradients of one block's channels; dB and dC [L, N] are added to, drate [N, W] is that of A (not of `rate`).

    With g_t = dLoss / dh_t = C_t dy_t + a_{t+1} g_{t+1} and a_t = exp(delta_t A):
    dC_t = dy_t h_t,  dB_t = g_t u_t,  du_t = g_t B_t for u = delta x,  d(delta_t A) = g_t a_t h_{t-1}.
    """
    L, N = len(x) // D, len(rate) // W
    w, g = scratch(7 * PART + W), scratch(N * W)
    # Of a segment: B and C, their gradients [N, S], and of V steps the products whose sums over channels these are.
    bs, cs, sum_b, sum_c = scratch(S * N), scratch(S * N), scratch(S * N), scratch(S * N)
    along_b, along_c = scratch(V * V), scratch(V * V)
    dk, dd = scratch(W), scratch(W)
    for i in range((L - 1) // S, -1, -1):
        s = i * S
        steps = min(S, L - s)
        if steps < S:
            # Steps after the end: nothing comes in, and the state stays what it is. The last segment is the first to come here.
            w[:], bs[:], cs[:] = ZERO, ZERO, ZERO
        bs[: steps * N], cs[: steps * N] = Bs[s * N : (s + steps) * N], Cs[s * N : (s + steps) * N]
        for t in range(steps):
            for v in range(0, W, V):
                here, there = t * W + v, (s + t) * D + first + v
                dt = load(delta, there)
                store(w, DELTA + here, dt)
                store(w, U + here, dt * load(x, there))
                store(w, DY + here, load(dy, there))
        w[DU:A] = ZERO
        for n in range(N):
            at, to = n * W, n * W + V
            k0, k1, h0, h1 = load(rate, at), load(rate, to), load(starts, i * N * W + at), load(starts, i * N * W + to)
            store(w, H, h0)
            store(w, H + V, h1)
            for t in range(S):
                b = spread(bs[t * N + n])
                p, q = t * W, t * W + V
                a0, a1 = exp2(load(w, DELTA + p) * k0), exp2(load(w, DELTA + q) * k1)
                h0, h1 = b * load(w, U + p) + a0 * h0, b * load(w, U + q) + a1 * h1
                store(w, A + p, a0)
                store(w, A + q, a1)
                store(w, H + W + p, h0)
                store(w, H + W + q, h1)
            g0, g1, m0, m1 = load(g, at), load(g, to), spread(ZERO), spread(ZERO)
            for last in range(S - V, -1, -V):
                for row in range(V - 1, -1, -1):
                    t = last + row
                    b, c = spread(bs[t * N + n]), spread(cs[t * N + n])
                    p, q = t * W, t * W + V
                    dy0, dy1 = load(w, DY + p), load(w, DY + q)
                    g0, g1 = g0 + dy0 * c, g1 + dy1 * c
                    store(along_c, row * V, dy0 * load(w, H + W + p) + dy1 * load(w, H + W + q))
                    store(along_b, row * V, g0 * load(w, U + p) + g1 * load(w, U + q))
                    store(w, DU + p, load(w, DU + p) + g0 * b)
                    store(w, DU + q, load(w, DU + q) + g1 * b)
                    g0, g1 = g0 * load(w, A + p), g1 * load(w, A + q)
                    e0, e1 = g0 * load(w, H + p), g1 * load(w, H + q)
                    store(w, DDELTA + p, load(w, DDELTA + p) + e0 * k0)
                    store(w, DDELTA + q, load(w, DDELTA + q) + e1 * k1)
                    m0, m1 = m0 + e0 * load(w, DELTA + p), m1 + e1 * load(w, DELTA + q)
                store(sum_b, n * S + last, sums(along_b))
                store(sum_c, n * S + last, sums(along_c))
            store(g, at, g0)
            store(g, to, g1)
            # A segment's sum in float32, their sum in float64: a million terms of one sign would lose digits otherwise.
            store(dk, 0, m0)
            store(dk, V, m1)
            for d in range(W):
                drate[at + d] += dk[d]
        for t in range(steps):
            for n in range(N):
                dB[(s + t) * N + n] += sum_b[n * S + t]
                dC[(s + t) * N + n] += sum_c[n * S + t]
        dd[:] = ZERO
        for t in range(steps):
            for v in range(0, W, V):
                here, there = t * W + v, (s + t) * D + first + v
                du, xt, dyt = load(w, DU + here), load(x, there), load(w, DY + here)
                store(ddelta, there, load(w, DDELTA + here) * spread(LN2) + du * xt)
                store(dx, there, du * load(w, DELTA + here) + dyt * load(skip, v))
                store(dd, v, load(dd, v) + xt * dyt)
        for d in range(W):
            dskip[d] += dd[d]


# ------------------------------------------------------------------------------------------------------- in autograd


def each_block(work: Callable[[int, int, int], None], batch: int, blocks: int) -> None:
    """work(thread, sample, block) for every block of channels of every sample."""
    turns = [(b, block) for b in range(batch) for block in range(blocks)]
    threads = threads_for(batch, blocks)

    def turn(thread: int) -> None:
        for b, block in turns[thread::threads]:
            work(thread, b, block)

    if threads == 1:
        turn(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(turn, range(threads)))


def threads_for(batch: int, blocks: int) -> int:
    return min(torch.get_num_threads(), batch * blocks)


def flat(*tensors: Tensor, channels: int | None = None) -> list[Floats]:
    """[B, the rest] in float32, the last dimension filled with zeros to a multiple of a block's where it is `channels`."""
    whole = [t.detach().float() for t in tensors]
    if channels is not None and channels % W:
        whole = [functional.pad(t, (0, -channels % W)) for t in whole]
    return [t.contiguous().flatten(1).numpy() for t in whole]


class Kept(Protocol):
    """What `NumbaScan` keeps for its backward: the inputs, then the states."""

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class NumbaScan(torch.autograd.Function):
    """`selective_scan` whole, D x as well; keeps the state at every segment's start."""

    @staticmethod
    def forward(
        ctx: Kept, x_BLD: Tensor, delta_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor, D_D: Tensor
    ) -> Tensor:
        B, L, D = x_BLD.shape
        (x, delta), (Bs, Cs) = flat(x_BLD, delta_BLD, channels=D), flat(B_BLN, C_BLN)
        rate, skip = _rate(A_DN), _skip(D_D)
        K, wide = len(rate), len(rate) * W
        y, starts = np.empty_like(x), np.empty((B, K, -(-L // S) * rate.shape[1]), np.float32)

        def work(_: int, b: int, k: int) -> None:
            forward_block(x[b], delta[b], rate[k], skip[k], Bs[b], Cs[b], y[b], starts[b, k], wide, k * W)

        each_block(work, B, K)
        ctx.save_for_backward(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN, D_D, torch.from_numpy(starts))
        return torch.from_numpy(y).view(B, L, wide)[..., :D].to(x_BLD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Kept, dy_BLD: Tensor) -> tuple[Tensor, ...]:
        # Asked for once: recomputed blocks give what they saved a single time.
        *given, kept = ctx.saved_tensors
        B, L, D = given[0].shape
        (x, delta, dy), (Bs, Cs) = flat(given[0], given[1], dy_BLD, channels=D), flat(given[3], given[4])
        rate, skip, starts = _rate(given[2]), _skip(given[5]), kept.numpy()
        K, wide, threads = len(rate), len(rate) * W, threads_for(B, len(rate))
        dx, ddelta = np.empty_like(x), np.empty_like(delta)
        drate, dskip = np.zeros((B, *rate.shape)), np.zeros((B, *skip.shape))
        # Written here, not asked for as zeros: those would come page by page, while the threads wait for each other's.
        dB, dC = (np.full((threads, *Bs.shape), ZERO) for _ in range(2))

        def work(thread: int, b: int, k: int) -> None:
            of_inputs = (x[b], delta[b], rate[k], skip[k], Bs[b], Cs[b], starts[b, k], dy[b])
            into = (dx[b], ddelta[b], drate[b, k], dskip[b, k], dB[thread, b], dC[thread, b])
            backward_block(*of_inputs, *into, wide, k * W)

        each_block(work, B, K)
        # In place: a copy would be the largest thing in memory after the gradients themselves.
        for parts in (dB, dC):
            for other in parts[1:]:
                parts[0] += other
        dA = drate.sum(0).reshape(K, -1, W).swapaxes(1, 2).reshape(wide, -1)[:D]
        through = (torch.from_numpy(g).view(B, L, wide)[..., :D] for g in (dx, ddelta))
        found = (*through, *map(torch.from_numpy, (dA, dB[0], dC[0], dskip.sum(0).reshape(-1)[:D])))
        return tuple(
            g.view(t.shape).to(t.dtype) if g.is_contiguous() else g.to(t.dtype)
            for g, t in zip(found, given, strict=True)
        )


def _rate(A_DN: Tensor) -> Floats:
    """A in powers of two, [K, N W]: rounded once."""
    exact = functional.pad(A_DN.detach().double(), (0, 0, 0, -len(A_DN) % W)) / math.log(2)
    return exact.float().view(-1, W, A_DN.shape[1]).mT.contiguous().flatten(1).numpy()


def _skip(D_D: Tensor) -> Floats:
    """D, [K, W]."""
    return functional.pad(D_D.detach().float(), (0, -len(D_D) % W)).view(-1, W).numpy()

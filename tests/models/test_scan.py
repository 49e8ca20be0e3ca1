"""The selective scan against a sequential reference in float64, value and gradients."""

from __future__ import annotations

import sys
import types
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from compiled.loading import why_not
from models.layers import scan, scan_chunked
from models.layers.scan import backend, mamba_ssm_loads, selective_scan
from models.layers.scan_chunked import reverse_scan_, scan_, segment_steps


def inputs(L, B=2, D=3, N=4, dtype=torch.float32, seed=0):
    """x, delta, A, B, C, D with the sizes that occur in training."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    delta = torch.exp(normal(B, L, D) - 3)
    A = -torch.arange(1.0, N + 1, dtype=torch.float64).repeat(D, 1)
    made = [normal(B, L, D), delta, A, normal(B, L, N), normal(B, L, N), normal(D)]
    return [t.to(dtype).requires_grad_() for t in made]


def sequential(x, delta, A, Bs, Cs, Ds):
    """The recurrence, one step after another."""
    h, y = x.new_zeros(x.shape[0], *A.shape), []
    for t in range(x.shape[1]):
        h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * x[:, t])[..., None] * Bs[:, t, None]
        y.append((h * Cs[:, t, None]).sum(-1) + Ds * x[:, t])
    return torch.stack(y, 1)


def run(function, given, exact=False):
    """Output and gradients of a weighted sum."""
    given = [t.detach().double().requires_grad_() if exact else t for t in given]
    y = function(*given)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return [y.detach(), *torch.autograd.grad((y * weights.to(y.dtype)).sum(), given)]


def assert_close(found, expected, tolerance=1e-5):
    for name, a, b in zip(("y", "x", "delta", "A", "B", "C", "D"), found, expected, strict=True):
        gap = (a.double() - b.double()).abs().max() / b.abs().max().clamp_min(1e-30)
        assert gap < tolerance, f"{name}: {gap:.1e}"


@pytest.fixture
def numba(monkeypatch):
    """Scans of any size by numba's machine code."""
    pytest.importorskip("numba")
    monkeypatch.setattr(scan, "NUMBA_STATES", 0)
    assert scan.numba_loads()


@pytest.fixture
def threads():
    """As many as a test says; one again afterwards."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


@pytest.mark.parametrize("room", [1 << 17, 300, 1])
@pytest.mark.parametrize("L", [1, 7, 8, 9, 250])
def test_equals_the_sequential_reference(L, room, monkeypatch):
    """Whole, in several segments with a rest, and in the shortest segments."""
    monkeypatch.setattr(scan_chunked, "CPU_SEGMENT", room)
    given = inputs(L)
    assert_close(run(selective_scan, given), run(sequential, given, exact=True))


@pytest.mark.parametrize("L", [1, 24, 65])
def test_plain_loop_equals_the_sequential_reference(L, monkeypatch):
    """The path of wide rows, which are not joined in pairs."""
    monkeypatch.setattr(scan_chunked, "SMALL_ROW", 0)
    given = inputs(L)
    assert_close(run(selective_scan, given), run(sequential, given, exact=True))


@pytest.mark.parametrize("few", [1, 8, 100])
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9, 13, 16, 17, 31])
def test_scans_in_pairs(rows, few, monkeypatch):
    monkeypatch.setattr(scan_chunked, "FEW_ROWS", few)
    g = torch.Generator().manual_seed(0)
    h, a = torch.randn(rows, 5, generator=g), torch.rand(rows - 1, 5, generator=g)
    there, back, kept = [h[0]], [h[-1]], a.clone()
    for t in range(rows - 1):
        there.append(a[t] * there[-1] + h[t + 1])
        back.append(a[rows - 2 - t] * back[-1] + h[rows - 2 - t])
    torch.testing.assert_close(scan_(h.clone(), a), torch.stack(there))
    torch.testing.assert_close(reverse_scan_(h.clone(), a), torch.stack(back[::-1]))
    assert torch.equal(a, kept), "the decays are needed again"


def test_gradients_are_exact():
    given = inputs(9, B=1, D=2, N=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(selective_scan, given)


def test_long_and_forgetful_sequences_stay_accurate():
    """Decay over 3,000 steps from almost none to total: no product underflows into a division."""
    given = inputs(3000, B=1, D=2, N=16)
    with torch.no_grad():
        given[1][:, :, 0] *= 1e-3
        given[1][:, :, 1] *= 1e2
    assert_close(run(selective_scan, given), run(sequential, given, exact=True))


def test_bfloat16_keeps_float32_states():
    given = inputs(2000, B=1)
    half = [t.detach().bfloat16().requires_grad_() for t in given]
    half[2] = half[2].detach().float().requires_grad_()
    y = selective_scan(*half)
    assert y.dtype == torch.bfloat16
    exact = sequential(*(t.detach().double() for t in half))
    assert (y - exact).abs().max() < 0.02 * exact.abs().max()


def test_states_are_not_kept():
    """What backward keeps is the inputs and one state a segment, whatever the length."""
    given = inputs(4096, B=1, D=32, N=16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        selective_scan(*given)
    assert sum(kept) < 0.5 * 4096 * 32 * 16 * 4


def test_segments_do_not_grow_with_the_length():
    cpu = torch.device("cpu")
    assert (
        segment_steps(10**6, 1, 64, 16, cpu) == segment_steps(10**5, 1, 64, 16, cpu) == scan_chunked.CPU_SEGMENT // 1024
    )
    assert segment_steps(50, 1, 64, 16, cpu) == 50


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "dtype", "states", "loads", "runs"),
    [
        (CPU, torch.float32, scan.NUMBA_STATES, True, "numba"),
        (CPU, torch.bfloat16, scan.NUMBA_STATES, True, "numba"),
        (CPU, torch.float32, scan.NUMBA_STATES - 1, True, "chunked"),
        (CPU, torch.float64, scan.NUMBA_STATES, True, "chunked"),
        (CPU, torch.float32, scan.NUMBA_STATES, False, "chunked"),
    ],
)
def test_which_implementation_runs(device, dtype, states, loads, runs, monkeypatch):
    monkeypatch.setattr(scan, "numba_loads", lambda: loads)
    assert backend(device, dtype, states) == runs


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 63, 5), (1, 64, 64), (2, 65, 70), (1, 300, 130)])
def test_numba_equals_the_sequential_reference(shape, numba, threads):
    """Rests of segments and of blocks of channels, several samples, one thread and more than there are blocks."""
    B, L, D = shape
    given = inputs(L, B, D, N=16)
    exact = run(sequential, given, exact=True)
    alone = run(selective_scan, given)
    assert_close(alone, exact, 2e-6)
    threads(3)
    together = run(selective_scan, given)
    assert_close(together, exact, 2e-6)
    assert all(torch.equal(a, b) for a, b in zip(together, run(selective_scan, given), strict=True))
    assert torch.equal(alone[0], together[0]), "threads share no sum in the forward pass"


def test_numba_reads_inputs_as_they_lie(numba):
    """Channels before time, as a convolution leaves them, and one gradient for all outputs, which has no strides."""
    given = inputs(70, D=5)
    across = [t.detach().mT.contiguous().mT.requires_grad_() if t.dim() == 3 else t for t in given]
    assert not across[0].is_contiguous()
    found, expected = ([y := selective_scan(*g), *torch.autograd.grad(y.sum(), g)] for g in (across, given))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_numba_in_a_block_that_is_recomputed(numba):
    given = inputs(70)
    plain, again = (
        torch.autograd.grad(call(selective_scan, *given).sum(), given)
        for call in (lambda f, *x: f(*x), partial(checkpoint, use_reentrant=False))
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_numba_stays_accurate_over_long_memories(numba):
    """Decays from almost none, over thousands of steps, to total: an exponential that is wrong on one side adds up."""
    given = inputs(3000, B=1, D=2, N=16)
    with torch.no_grad():
        given[1][:, :, 0] *= 1e-3
        given[1][:, :, 1] *= 1e3
    assert_close(run(selective_scan, given), run(sequential, given, exact=True), 2e-6)


def test_numba_keeps_float32_states_of_bfloat16(numba):
    given = [t.detach().bfloat16().requires_grad_() for t in inputs(500, B=1)]
    y = selective_scan(*given)
    grads = torch.autograd.grad(y.sum(), given)
    assert {y.dtype, *(g.dtype for g in grads)} == {torch.bfloat16}
    exact = sequential(*(t.detach().double() for t in given))
    assert (y - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_numba_hides_no_nan(which, numba):
    """Of x, delta, A or B: whatever comes later in its channel is NaN, and nothing before."""
    given = [t.detach().clone() for t in inputs(150, B=1, D=70)]
    given[which].view(-1)[-1] = torch.nan
    y = selective_scan(*given)
    assert y[0, -1, -1].isnan()
    assert not y[0, :, 0].isnan()[:-1].any()


@pytest.fixture(scope="module")
def powers():
    """2^z of a list, vector by vector."""
    njit = pytest.importorskip("numba").njit
    from models.layers.scan_numba import exp2
    from models.layers.simd import V, load, store

    @njit("void(float32[::1], float32[::1])")
    def each(z, found):
        for i in range(0, len(z), V):
            store(found, i, exp2(load(z, i)))

    def of(values):
        z = torch.nn.functional.pad(torch.as_tensor(values, dtype=torch.float32), (0, -len(values) % V))
        found = torch.full_like(z, torch.nan)
        each(z.numpy(), found.numpy())
        return found[: len(values)]

    return of


def test_powers_of_two(powers):
    z = torch.cat([torch.linspace(-126, 0, 20_001), -torch.logspace(-30, 0, 2_001), torch.linspace(0, 127, 2_001)])
    assert ((powers(z).double() / torch.exp2(z.double()) - 1).abs() < 8e-8).all()
    inf = float("inf")
    assert powers([-127.0, -1e30, -inf, 128.0, inf, 0.0]).tolist() == [0, 0, 0, inf, inf, 1]
    assert powers([float("nan")]).isnan().all()


def test_sums_of_vectors():
    """Of V vectors, each into its own place."""
    njit = pytest.importorskip("numba").njit
    from models.layers.simd import V, store, sums

    @njit("void(float32[::1], float32[::1])")
    def summed(rows, found):
        store(found, 0, sums(rows))

    rows = torch.arange(float(V * V)).square()
    found = torch.zeros(V)
    summed(rows.numpy(), found.numpy())
    assert torch.equal(found, rows.view(V, V).sum(1))


def test_machine_code_without_a_place_to_keep_it(monkeypatch):
    pytest.importorskip("numba")
    from compiled import kernel
    from models.layers.scan_numba import compiled

    def refused(*of):
        raise kernel.NotKeptError({Path("/nowhere"): OSError(13, "Permission denied")})

    monkeypatch.setattr(kernel, "folder", refused)
    with pytest.warns(
        UserWarning,
        match=r"is compiled anew by every process, for some seconds: .*/nowhere \(Permission denied\) cannot be written",
    ):
        assert compiled("float32(float32)")(lambda x: x + x)(1.5) == 3
    kernel._say.cache_clear()


def test_numba_that_does_not_load_is_named_once(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setitem(sys.modules, "models.layers.scan_numba", None)
    scan.numba_loads.cache_clear()
    why_not.cache_clear()
    with pytest.warns(UserWarning, match="the selective scan runs in PyTorch: numba does not work here"):
        assert not scan.numba_loads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not scan.numba_loads()
    scan.numba_loads.cache_clear()
    why_not.cache_clear()


def test_a_kernel_that_does_not_load_is_named_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", None)
    mamba_ssm_loads.cache_clear()
    with pytest.warns(UserWarning, match="runs without mamba-ssm, which does not work here"):
        assert not mamba_ssm_loads(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not mamba_ssm_loads(0)
    mamba_ssm_loads.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_is_given_what_it_asks_for(monkeypatch, dtype):
    """Its layout is [B, D, L], B and C [B, N, L], all of x's dtype, A and D in float32: a stand-in with that signature."""

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        assert {t.dtype for t in (u, delta, B, C)} == {dtype}
        assert A.dtype == D.dtype == torch.float32
        assert all(t.is_contiguous() for t in (u, delta, B, C))
        across = [t.transpose(1, 2).float() for t in (u, delta, B, C)]
        return sequential(across[0], across[1], A, across[2], across[3], D).transpose(1, 2).to(u.dtype)

    kernel = types.SimpleNamespace(selective_scan_fn=selective_scan_fn)
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", kernel)
    given = [t.detach().to(dtype) for t in inputs(20)]
    expected = selective_scan(*given)
    monkeypatch.setattr(scan, "backend", lambda *_: "mamba_ssm")
    found = selective_scan(*given)
    assert found.dtype == dtype
    near = {"rtol": 2e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **near)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu():
    given = inputs(300, D=8)
    there = [t.detach().cuda().requires_grad_() for t in given]
    assert_close([t.cpu() for t in run(selective_scan, there)], run(sequential, given, exact=True), 1e-4)

"""The Triton kernels of the selective scan without a GPU: against the reference in Triton's interpreter, and compiled for CUDA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.layers import scan
from models.layers.scan import backend

pytest.importorskip("triton", reason="this PyTorch came without Triton")
pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parent.parent.parent
CUDA = torch.device("cuda")


@pytest.mark.slow
def test_interpreted_equals_the_sequential_reference():
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.triton_scan"],
        env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=ROOT, text=True, capture_output=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["gaps"]) == 4
    assert all(gap < 1e-6 for case in found["gaps"].values() for gap in case.values()), found["gaps"]
    assert found["half"] < 0.02
    assert found["believed"], "without gradients asked for by the caller, too"
    assert not found["believed when wrong"]


@pytest.mark.slow
def test_compiles_for_cuda(tmp_path, monkeypatch):
    """Down to machine code, at the sizes that run: what the interpreter lets pass and the compiler would not."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models.layers import scan_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {"N": 16, "S": scan_triton.S, "W": scan_triton.W}
    for kernel, constants in [
        (scan_triton._local, sizes | {"BACK": True}),
        (scan_triton._carry, {"W": 128, "BACK": True}),
        (scan_triton._outputs, sizes),
        (scan_triton._gradients, sizes),
    ]:
        kinds = {"x": "*bf16", "delta": "*bf16", "L": "i32", "D": "i32", "K": "i32", "M": "i32"}
        names = {n: "constexpr" if n in constants else kinds.get(n, "*fp32") for n in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=names, constexprs=constants)
        assert triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]


@pytest.mark.parametrize(
    ("mamba_ssm", "triton", "dtype", "runs"),
    [
        (True, True, torch.float32, "mamba_ssm"),
        (False, True, torch.bfloat16, "triton"),
        (False, True, torch.float64, "chunked"),
        (False, False, torch.float32, "chunked"),
    ],
)
def test_which_runs_on_a_gpu(mamba_ssm, triton, dtype, runs, monkeypatch):
    monkeypatch.setattr(scan, "mamba_ssm_loads", lambda *_: mamba_ssm)
    monkeypatch.setattr(scan, "triton_runs", lambda *_: triton)
    assert backend(CUDA, dtype, 1) == runs


def test_triton_that_does_not_run_is_named_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "models.layers.scan_triton", None)
    scan.triton_runs.cache_clear()
    with pytest.warns(UserWarning, match="the selective scan runs in PyTorch: Triton does not work here"):
        assert not scan.triton_runs(torch.device("cpu"))
    scan.triton_runs.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_equals_the_reference():
    assert scan.triton_runs(torch.device("cuda:0"))

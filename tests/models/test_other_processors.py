"""The selective scan on a processor without AVX-512, without a compiler, and without numba: the next path runs, `doctor` says so."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch

from launch import doctor

ROOT = Path(__file__).resolve().parents[2]
# What numba compiles for, and what PyTorch's own kernels take.
OLD = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma", "ATEN_CPU_CAPABILITY": "avx2"}
NO_COMPILER = {"PATH": "/nowhere", "CC": "/nowhere/cc", "CXX": "/nowhere/c++"}


def check() -> None:
    """In a process of its own, which finds what the environment says."""
    from models.layers import scan, scan_numba
    from tests.models.test_scan import assert_close, inputs, run, selective_scan, sequential

    assert torch.backends.cpu.get_cpu_capability() == "AVX2"
    assert scan.backend(torch.device("cpu"), torch.float32, scan.NUMBA_STATES) == "numba"
    scan.NUMBA_STATES = 0
    given = inputs(150, D=70, N=16)
    assert_close(run(selective_scan, given), run(sequential, given, exact=True), 2e-6)
    compiled: Any = scan_numba.forward_block
    (code,) = compiled.inspect_asm().values()
    assert "ymm" in code, "the inner loop is in vectors of 256 bits"
    assert "zmm" not in code, "and in none of 512"


def test_numba_without_avx512_and_without_a_compiler(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    env = {**os.environ, **OLD, **NO_COMPILER, "NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    line = "from tests.models.test_other_processors import check; check()"
    done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_doctor_names_what_runs_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "version", missing)
    assert (
        "not installed (pip install -e '.[numba]', docs/install.md): the chunked PyTorch scan runs"
        in doctor.scan_on_cpu()
    )
    assert "the chunked PyTorch scan runs on a GPU" in doctor.scan_on_gpu(cuda=True)


def test_numba_that_compiles_nothing_is_not_used() -> None:
    """Its functions would run in Python, a thousand times as long, or not at all."""
    pytest.importorskip("numba")
    line = (
        "from models.layers.scan import numba_loads; from models.transforms.resampling import why_not_own; "
        "from shards.format.jpeg_codes import why_not_quick; print(numba_loads(), why_not_own(), why_not_quick())"
    )
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert done.stdout.split("\n")[0] == "False NUMBA_DISABLE_JIT is set NUMBA_DISABLE_JIT is set", done.stderr
    assert "the selective scan runs in PyTorch: NUMBA_DISABLE_JIT is set" in done.stderr

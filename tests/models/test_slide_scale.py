"""Slide systems take a fine-tune step at the size of real slides within 24 GB, by tests/benchmarks/slides.py, which prints the figures."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.methods.slides._fused import FusedMethod
from models.registry import families, get_method

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "slides.py"
SYSTEMS = families()["slides"]
SIZES = [(n, 15_000) for n in SYSTEMS] + [(n, 148_569) for n in SYSTEMS if not issubclass(get_method(n), FusedMethod)]


def measured(name: str, *words: str) -> list[str]:
    """The cells of a system's line: name, patches, parameters, seconds, their unit, gigabytes, their unit."""
    env = {**os.environ, "PYTHONPATH": str(BENCHMARK.parents[2])}
    ran = subprocess.run(
        [sys.executable, str(BENCHMARK), name, *words], capture_output=True, text=True, env=env, check=True
    )
    print(ran.stdout)
    return ran.stdout.splitlines()[-1].split()


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "patches"), SIZES)
def test_one_step_fits_in_24_gb(name, patches):
    cells = measured(name, f"patches={patches}")
    assert (cells[0], cells[1]) == (name, f"{patches:,}")
    assert math.isfinite(float(cells[3]))
    assert 0 < float(cells[5]) < 24


@pytest.mark.slow
def test_the_figures_are_those_of_one_step():
    cells = measured("abmil", "patches=300", "width=16")
    assert cells[:2] == ["abmil", "300"]
    assert (cells[4], cells[6]) == ("s", "GB")
    embed, gated, head = 16 * 512 + 512, 2 * (512 * 128 + 128) + 128 + 1, 512 * 2 + 2
    assert int(cells[2].replace(",", "")) == embed + gated + head

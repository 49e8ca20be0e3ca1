"""gimp-paper takes one step of each stage within 8 GB on a CPU: 6,000 x 1024 patches, 60,480 genes, width 512."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", [["2"], ["4", "checkpointing"]])
def test_one_step_fits_in_8_gb(mode):
    env = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}
    done = subprocess.run(
        [sys.executable, str(HERE / "paper_scale.py"), *mode], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    print(cost)
    assert math.isfinite(cost["gene_loss"])
    assert math.isfinite(cost["pretrain_loss"])
    assert cost["peak_gb"] < 8

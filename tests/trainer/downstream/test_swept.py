"""A sweep of fine-tunes, killed and stopped: the same final numbers as fine-tunes that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trainer.downstream.conftest import Finetune
from tests.trainer.forking import Forks
from tests.trainer.test_sweep import begun, ended, kill, runs_of, status, swept, until

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(900)]
LONG = ["seeds=[0, 1]", "protocol.steps=60", "protocol.evaluations=2", "checkpoint.every=25", "log.every=10"]
SHORT = ["protocol.batch=4", "protocol.lr=1e-3", "data.workers=1", "bootstrap.draws=100"]


def final(out: Path) -> dict[str, Any]:
    found = json.loads((out / "result.json").read_bytes())
    return {k: v for k, v in found.items() if k != "wall_s"}


def test_a_sweep_of_fine_tunes_goes_on(
    pretrained: Callable[[str], Path], finetune: Finetune, forks: Forks, cohort: Path, tmp_path: Path
) -> None:
    about = ["--task", "demo_severity", "--method", "gimp", "--init", str(pretrained("gimp"))]
    content = {
        "command": "finetune", "words": [*about, f"data.path={cohort}", *SHORT, *LONG], "grid": {"protocol.fraction": [0.5, 1.0]},
    }  # fmt: skip
    file, out = tmp_path / "s.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content))
    half, whole = out / "fraction-0.5", out / "fraction-1.0"

    sweep = begun(forks, file, out)
    until(sweep, half / "log.txt", "seed 1, lr 0.001")
    kill(sweep, *runs_of(sweep))
    assert not (half / "result.json").exists()
    assert (half / "seed-0" / "lr-0.001" / "point.json").exists()

    sweep = begun(forks, file, out)
    until(sweep, whole / "log.txt", "step 10/60")
    os.kill(sweep.pid, signal.SIGTERM)
    code, said = ended(sweep)
    assert code == 75, said
    assert (status(out, half.name)["state"], status(out, whole.name)["state"]) == ("done", "stopped")

    code, said = swept(forks, file, out)
    assert code == 0, said
    assert "2 done" in said
    for folder, fraction in ((half, 0.5), (whole, 1.0)):
        undisturbed = finetune(tmp_path / folder.name, *about, *LONG, f"protocol.fraction={fraction}")
        assert undisturbed.codes == [0], undisturbed.text
        assert final(folder) == final(tmp_path / folder.name)

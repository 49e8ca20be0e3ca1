from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.trainer.cluster.desk import Commands


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Scripts in place of Slurm's commands, and nothing else on the PATH: none at first."""
    commands = Commands(tmp_path)
    monkeypatch.setenv("PATH", str(commands.bin))
    for name in [k for k in os.environ if k.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    return commands

"""DeepSpeed's conversion of a checkpoint to its universal form, which another number of ranks loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from trainer.errors import TrainingError


def to_universal(source: Path, target: Path, stage: int) -> None:
    """DeepSpeed's conversion, in a process of its own.

    Raises:
        TrainingError: it failed, with what it said.
    """
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *conversion(source, target, stage)]
    # Without the run's ranks in its environment, or it would wait for them to join it.
    alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    done = subprocess.run(command, env=alone, capture_output=True, text=True)
    if done.returncode:
        raise TrainingError(
            f"converting {source.parent} to a universal checkpoint failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


def conversion(source: Path, target: Path, stage: int) -> list[str]:
    """The converter's words."""
    words = ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    words += ["--input_folder", str(source), "--output_folder", str(target)]
    return words + (["--inject_missing_state"] if stage in (1, 2) else [])

"""A run's folder: made, locked, and checked against the command that comes back to it.

out/config.json         resolved configuration, recipe, versions
out/metrics.jsonl       one object a step
out/tensorboard/
out/checkpoints/        see trainer/checkpoint.py
out/stages/NAME.safetensors   weights at the end of a stage
out/weights.safetensors       weights at the end of the run, with method.json beside it
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from trainer.config import Config, differences
from trainer.errors import UserError
from trainer.manifest import write_atomic


class RunFolder:
    """Held by rank 0; the lock goes with the process, so a killed run leaves none behind."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: int | None = None

    def claim(self, config: Config, resolved: dict[str, Any]) -> None:
        """Takes the folder for this process.

        Raises:
            UserError: not writable, in use by another process, or holding a run with another configuration.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            raise UserError(f"out={self.path}: cannot be written ({e.strerror}); give another out=FOLDER") from e
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise UserError(
                f"out={self.path}: another process is training in it; wait for it, or give another out=FOLDER"
            ) from e
        stored = self._stored()
        if stored is not None and not config.resume.accept_config:
            changed = differences(stored["config"], resolved)
            if changed:
                raise UserError(
                    [f"{self.path} holds a run with another configuration; {line}" for line in changed]
                    + [
                        "give another out=FOLDER for a new run, or resume.accept_config=true to go on with the new values"
                    ]
                )

    def record(self, resolved: dict[str, Any], versions: dict[str, str]) -> None:
        """Writes what the run is, once nothing speaks against going on: a refused command leaves the folder as it was.

        Raises:
            UserError: not writable.
        """
        content = {"config": resolved, "versions": versions}
        try:
            (self.path / "stages").mkdir(exist_ok=True)
            write_atomic(self.path / "config.json", json.dumps(content, indent=1, default=str).encode())
        except OSError as e:
            raise UserError(
                f"out={self.path}: cannot be written ({e.strerror}); free space or give another out=FOLDER"
            ) from e

    def _stored(self) -> dict[str, Any] | None:
        path = self.path / "config.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_bytes())
        except ValueError as e:
            raise UserError(f"{path}: not JSON ({e}); restore it or give another out=FOLDER") from e

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def versions() -> dict[str, str]:
    """Versions of what decides numbers, and the commit where the code is a git checkout."""
    import subprocess
    from importlib.metadata import version

    out = {name: version(name) for name in ("medpair", "torch", "deepspeed", "numpy")}
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True)
        if done.returncode == 0:
            out["commit"] = done.stdout.strip()
    return out

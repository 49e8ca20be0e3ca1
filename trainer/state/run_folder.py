"""A run's folder: made, locked, and checked against the command that comes back to it.

out/config.json         resolved configuration, recipe, versions
out/metrics.jsonl       one object a step
out/left-out.json       steps that are not trained on, if the run went back (trainer/state/left_out.py)
out/tensorboard/
out/checkpoints/        see trainer/state/checkpoint.py
out/ended.json          how a run without a product was left (trainer/state/ended.py)
out/hang/               stacks of a life that hung (trainer/health/hang.py)
out/stages/NAME.safetensors   weights at the end of a stage
out/weights.safetensors       weights at the end of the run, with method.json beside it
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.contract.assets import asset_digests, asset_problems
from models.registry import get_method
from trainer.config.schema import Config, by_todays_names, differences, out_folder
from trainer.config.shared import Resume
from trainer.errors import UserError
from trainer.state import ended, fence
from trainer.state.files import write_atomic

CODE = ("about.code",)


def _keep_code(stored: dict[str, Any], resolved: dict[str, Any]) -> None:
    """Notes in `resolved` the versions of the code that made the run so far, where it goes on under another."""
    old, new = stored.get("about", {}), resolved.get("about", {})
    if "code" in old and "code" in new:
        before = {*old.get("code_before", ()), old["code"]} - {new["code"]}
        if before:
            new["code_before"] = sorted(before)


def as_begun(config: Config) -> Config:
    """`config`, whose images are decoded as the run in its folder has it, where the command does not say how.

    Raises:
        UserError: a damaged folder.
    """
    stored = RunFolder(out_folder(config)).stored()
    if stored is None or "exact_decode" in config.data.model_fields_set:
        return config
    exact = by_todays_names({"data": stored.get("data", {})})["data"].get("exact_decode")
    if exact is None:  # no pre-training lies there, which is said where the folder is claimed
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"exact_decode": exact})})


class RunFolder:
    """Held by rank 0; the lock goes with the process, so a killed run leaves none behind."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: int | None = None

    def claim(self, resume: Resume, resolved: dict[str, Any]) -> None:
        """Takes the folder for this process.

        Raises:
            UserError: not writable, in use by another process, or holding a run with another configuration.
        """
        life = fence.Life.here()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            free = self._try_lock()
        except OSError as e:
            raise UserError(f"out={self.path}: cannot be written ({e.strerror}); give another out=FOLDER") from e
        before = fence.holder(self.path)
        if not free and not life.succeeds(before):
            raise UserError(
                f"out={self.path}: another process is training in it ({before or 'unknown'}); wait for it, or give another out=FOLDER"
            )
        raw = self.stored()
        stored = None if raw is None else {"config": by_todays_names(raw)}
        if stored is not None and not resume.accept_config:
            changed = differences(stored["config"], resolved, CODE if resume.accept_code else ())
            if changed:
                raise UserError(
                    [f"{self.path} holds a run with another configuration; {line}" for line in changed]
                    + [
                        "give another out=FOLDER for a new run, or resume.accept_config=true to go on with the new values"
                    ]
                    + ["resume.accept_code=true goes on with another version of the code alone"]
                    * any(line.startswith(CODE) for line in changed)
                )
        if stored is not None and resolved.get("method") and not resume.accept_config:
            kept = json.loads((self.path / "config.json").read_bytes()).get("assets", {})
            options = get_method(resolved["method_name"]).Options
            if changed := list(asset_problems(options, resolved["method"], kept, f"the run in {self.path}")):
                raise UserError([f"{line}, or give another out=FOLDER for a new run" for line in changed])
        if stored is not None:
            _keep_code(stored["config"], resolved)
        if not free:
            self._replace_lock()
        fence.take(self.path, life)

    def _try_lock(self) -> bool:
        """Whether the folder's lock is ours. Where files cannot be locked, the fence alone keeps lives apart."""
        while True:
            fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                if e.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                    self._lock = fd
                    return True
                os.close(fd)
                return False
            # A later life may have put a new lock file there between the two calls.
            if os.path.exists(self.path / ".lock") and os.path.samestat(os.fstat(fd), os.stat(self.path / ".lock")):
                self._lock = fd
                return True
            os.close(fd)

    def _replace_lock(self) -> None:
        """A lock of our own in place of one that an earlier life of this job still holds."""
        new = self.path / f".lock{fence.Life.here().tag}"
        self._lock = os.open(new, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.replace(new, self.path / ".lock")

    def record(self, resolved: dict[str, Any], versions: dict[str, str]) -> None:
        """Writes what the run is, once nothing speaks against going on: a refused command leaves the folder as it was.

        Raises:
            UserError: not writable.
        """
        content = {"config": resolved, "versions": versions, "assets": self._digests(resolved)}
        try:
            (self.path / "stages").mkdir(exist_ok=True)
            write_atomic(self.path / "config.json", json.dumps(content, indent=1, default=str).encode())
            ended.forget(self.path)
        except OSError as e:
            raise UserError(
                f"out={self.path}: cannot be written ({e.strerror}); free space or give another out=FOLDER"
            ) from e

    @staticmethod
    def _digests(resolved: Mapping[str, Any]) -> dict[str, str]:
        """Of the files that a method's options name, as they are when the run begins."""
        if not resolved.get("method"):
            return {}
        return asset_digests(get_method(resolved["method_name"]).Options, resolved["method"])

    def stored(self) -> dict[str, Any] | None:
        """The configuration that the folder holds, under the names that it was written with; None in a new one.

        Raises:
            UserError: damaged.
        """
        path = self.path / "config.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_bytes())["config"]
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path}: not JSON of a run ({e}); restore it or give another out=FOLDER") from e

    @contextlib.contextmanager
    def note_of_its_end(self) -> Iterator[None]:
        """Leaves ended.json where what is inside ends by an error or a stop; a no-op where this process does not hold the folder."""
        try:
            yield
        except BaseException as e:
            if self._lock is not None:
                ended.note(self.path, e)
            raise

    def release(self) -> None:
        fence.leave(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def versions() -> dict[str, str]:
    """Versions of what decides numbers, and the commit where the code is a git checkout."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    """Asked once: what a process has loaded stays what it was."""
    import subprocess
    from importlib.metadata import version

    out = {name: version(name) for name in ("medpair", "torch", "deepspeed", "numpy")}
    root = Path(__file__).resolve().parents[2]
    if (root / ".git").exists() and shutil.which("git"):
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True)
        if done.returncode == 0:
            out["commit"] = done.stdout.strip()
    return out

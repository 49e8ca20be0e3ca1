"""A folder that is complete or is not there: sizes and hashes of every file, written last, checked before use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from shards.format.info import write_atomic as replace_file
from trainer.state import fence

NAME = "manifest.json"


def digest(path: Path) -> dict[str, int | str]:
    with open(path, "rb") as f:
        return {"size": os.fstat(f.fileno()).st_size, "sha256": hashlib.file_digest(f, "sha256").hexdigest()}


def sync(path: Path) -> None:
    """Flushes a file or a folder's entries to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """A reader sees the old bytes or the new ones, whatever happens in between; an earlier life of the run writes nothing."""
    fence.check(path)
    replace_file(path, data)


def publish(tmp: Path, final: Path, entries: Mapping[str, Mapping[str, int | str]]) -> None:
    """Makes `tmp` the complete folder `final`: manifest, flush, rename. Until the rename, `final` does not exist."""
    write_atomic(tmp / NAME, json.dumps({"files": entries}, indent=1, sort_keys=True).encode())
    for folder in {tmp, *(p for p in tmp.rglob("*") if p.is_dir())}:
        sync(folder)
    fence.check(final)
    os.rename(tmp, final)
    sync(final.parent)


def problem(folder: Path) -> str | None:
    """Why a folder is not complete, or None when every file of its manifest is there, byte for byte."""
    try:
        entries = json.loads((folder / NAME).read_bytes())["files"]
        for name, entry in entries.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["size"]:
                return f"{name} has {path.stat().st_size} bytes, its manifest says {entry['size']}"
            if digest(path)["sha256"] != entry["sha256"]:
                return f"{name} does not have the hash in its manifest (damaged on disk?)"
    except FileNotFoundError:
        return "it has no manifest (the save did not finish)"
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"its manifest cannot be read ({e})"
    return None


def remove(folder: Path) -> None:
    """Deletes a folder so that a half-deleted one is never taken for a complete one."""
    if not folder.exists():
        return
    fence.check(folder)
    trash = folder.with_name(f".trash-{folder.name}")
    shutil.rmtree(trash, ignore_errors=True)
    os.rename(folder, trash)
    shutil.rmtree(trash)

"""Commands on a disk without room (RLIMIT_FSIZE: the system itself refuses the write): a named error, and everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from manifests import snapshot, sources

from shards.__main__ import main
from shards.pack.options import PackOptions
from tests.disk_full import with_no_room

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "preview": lambda at: ["preview", f"{at}/set", "--out", f"{at}/p.png"],
    "tokenizer --out": lambda at: ["tokenizer", f"{at}/set", "--size", "300", "--out", f"{at}/words.txt"],
    "tokenizer": lambda at: ["tokenizer", f"{at}/set", "--size", "300"],
    "split": lambda at: ["split", f"{at}/set", "--fractions", "0.5,0.5"],
    "pack --overwrite": lambda at: ["pack", f"{at}/in/manifest.csv", "--out", f"{at}/set", "--overwrite"],
    "meaning": lambda at: ["meaning", f"{at}/set", "patches.encoder=uni"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_room(name: str, tmp_path: Path) -> None:
    made = sources(tmp_path / "in", count=8)
    made.pack(tmp_path / "set", PackOptions(shard_samples=3))
    before = snapshot(tmp_path)
    said = with_no_room(lambda: print("status", main(COMMANDS[name](tmp_path))))
    assert "status 2" in said, said
    assert "File too large" in said
    assert "Fix: " in said
    assert "Traceback" not in said
    assert snapshot(tmp_path) == before

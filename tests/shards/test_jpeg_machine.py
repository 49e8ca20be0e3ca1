"""The machine code that reads JPEGs: kept once compiled, loaded without numba, and compiled again where it cannot be used."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.format import jpeg_machine
from shards.format.jpeg_codes import is_quick, surely_whole
from tests.shards.test_pack_jobs import jpeg

pytestmark = pytest.mark.skipif(not is_quick(), reason="needs numba")
LOADED = """
import sys
from shards.format.jpeg_codes import surely_whole, why_not_quick
assert why_not_quick() == "", why_not_quick()
data = sys.stdin.buffer.read()
print(surely_whole(data), surely_whole(data[:-9] + data[-2:]), "numba" in sys.modules)
"""


@pytest.fixture
def kept() -> Path:
    jpeg_machine.functions()
    return next(p for f in jpeg_machine.folders() for p in f.glob(f"jpeg-{jpeg_machine._key()}.o"))


def test_a_process_that_finds_it_does_not_load_numba(kept: Path) -> None:
    found = subprocess.run([sys.executable, "-c", LOADED], input=jpeg(1), capture_output=True, check=True)
    assert found.stdout.split() == [b"True", b"False", b"False"]


def test_a_file_that_is_damaged_is_not_loaded(kept: Path, tmp_path: Path) -> None:
    data = kept.read_bytes()
    assert jpeg_machine._loaded(kept) is not None
    code = data.partition(b"\n")[2]
    headless = json.dumps({"sha256": hashlib.sha256(code).hexdigest()}).encode() + b"\n" + code
    for damaged in (
        headless,
        data[:-1],
        data[:-1] + bytes([data[-1] ^ 1]),
        data[data.index(b"\n") :],
        b"",
        b"[]\n",
        b"{}\n",
    ):
        (tmp_path / "damaged.o").write_bytes(damaged)
        assert jpeg_machine._loaded(tmp_path / "damaged.o") is None
    assert jpeg_machine._loaded(tmp_path / "none.o") is None


def test_code_that_asks_numba_for_memory_is_not_kept() -> None:
    """Without numba there is none to give it: the process would end."""
    from numba import cfunc

    asks: Any = cfunc("i8(i8)")(lambda n: len(np.zeros(n)))
    with pytest.raises(RuntimeError, match=r"NRT_.*which only numba has"):
        jpeg_machine._object([asks])


@pytest.mark.parametrize("writable", [True, False])
def test_it_is_kept_in_the_first_folder_that_can_be_written(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    places = [tmp_path / "file", *[tmp_path / "new"] * writable]
    monkeypatch.setattr(jpeg_machine, "folders", lambda: places)
    assert set(jpeg_machine.functions()) == set(jpeg_machine.ARGUMENTS)
    assert len([*tmp_path.glob("*/jpeg-*.o")]) == writable
    assert surely_whole(jpeg(1))


def test_a_folder_that_was_named_is_the_only_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert jpeg_machine.folders() == [tmp_path]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jpeg_machine.folders()[1] == tmp_path / "medpair"

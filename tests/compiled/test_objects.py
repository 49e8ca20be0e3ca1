"""Machine code without numba: kept once compiled, loaded from its file, and compiled again where that cannot be used."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compiled import objects
from compiled.kept import folder
from shards.format.jpeg_codes import is_quick, surely_whole

pytestmark = pytest.mark.skipif(not is_quick(), reason="needs numba")
ENTRY = "shards.format.jpeg_entry"
LOADED = """
import sys
from shards.format.jpeg_codes import surely_whole, why_not_quick
assert why_not_quick() == "", why_not_quick()
data = sys.stdin.buffer.read()
print(surely_whole(data), surely_whole(data[:-9] + data[-2:]), "numba" in sys.modules)
"""
SQUARES = """
from numba import cfunc

@cfunc("i8(i8)")
def squares(n):
    total = 0
    for i in range(n):
        total += i * i
    return total

FUNCTIONS = (squares,)
"""
OLD = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}
ROOT = Path(__file__).resolve().parents[2]


def jpeg(seed: int) -> bytes:
    pixels, out = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.fixture
def kept() -> Path:
    path = objects.object_file(ENTRY)
    assert path.is_file()
    return path


def test_a_process_that_finds_it_does_not_load_numba(kept: Path) -> None:
    found = subprocess.run([sys.executable, "-c", LOADED], input=jpeg(1), capture_output=True, check=True)
    assert found.stdout.split() == [b"True", b"False", b"False"]


def test_nodes_of_other_processors_share_a_folder(tmp_path: Path) -> None:
    """Each compiles for itself the first time and finds its own the second time."""
    (tmp_path / "squares.py").write_text(SQUARES)
    line = "from compiled.objects import functions; print(functions('squares', {'squares': [c_int64]})['squares'](40), 'numba' in modules)"
    for env, numba in ((OLD, "True"), (OLD, "False"), ({}, "True"), (OLD, "False"), ({}, "False")):
        given = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "NUMBA_CACHE_DIR": str(tmp_path / "kept"), **env}
        words = [sys.executable, "-c", f"from ctypes import c_int64; from sys import modules; {line}"]
        done = subprocess.run(words, capture_output=True, env=given, text=True, timeout=240)
        assert done.stdout.split() == ["20540", numba], done.stderr
    code = [found[0] for p in (tmp_path / "kept").glob("*/*.o") if (found := objects._read(p))]
    assert len(code) == len({*code}) == 2


def test_the_processor_is_what_numba_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    host = objects.processor()
    assert "avx" in host[1] or "neon" in host[1]
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert objects.processor() == ("generic", "")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+sse2")
    assert objects.processor() == ("generic", "+sse2")


def test_a_file_that_is_damaged_is_not_loaded(kept: Path, tmp_path: Path) -> None:
    data = kept.read_bytes()
    head, _, code = data.partition(b"\n")
    assert objects._read(kept) is not None
    headless = head.replace(b'"names"', b'"others"') + b"\n" + code
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    for damaged in (headless, data[:-1], flipped, data[data.index(b"\n") :], b"", b"[]\n", b"{}\n"):
        (tmp_path / "damaged.o").write_bytes(damaged)
        assert objects._read(tmp_path / "damaged.o") is None
    assert objects._read(tmp_path / "none.o") is None


def test_code_that_asks_numba_for_memory_is_not_kept() -> None:
    """Without numba there is none to give it: the process would end."""
    from numba import cfunc

    asks: Any = cfunc("i8(i8)")(lambda n: len(np.zeros(n)))
    with pytest.raises(RuntimeError, match=r"NRT_.*which only numba has"):
        objects.object_code([asks])


def test_a_full_disk_keeps_nothing_and_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from shards.format.jpeg_whole import _ARGUMENTS

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folder.cache_clear()

    def full(**words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(objects.tempfile, "TemporaryDirectory", full)
    assert set(objects.functions(ENTRY, _ARGUMENTS)) == set(_ARGUMENTS)
    assert not [*tmp_path.glob("*/*.o")]
    assert surely_whole(jpeg(1))
    folder.cache_clear()

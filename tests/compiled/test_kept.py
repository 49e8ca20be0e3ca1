"""Machine code goes by every source that it is of; where it cannot be kept, that is said with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiled import kept
from compiled.kept import NotKeptError, folder, places, sources
from launch import doctor
from tests.rooms import imported
from tests.rooms import sources as files_of

ROOT = Path(__file__).resolve().parents[2]
KERNELS = {
    p for package in ("models", "shards") for p in files_of(ROOT, package) if "compiled.kernel" in imported(p)
} | {ROOT / "shards/format/jpeg_entry.py"}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def run(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    words = [sys.executable, "-B", "-c", code]
    return subprocess.run(words, cwd=cwd, env=given, capture_output=True, text=True, timeout=240)


def test_machine_code_is_made_anew_when_another_file_changes(tmp_path: Path) -> None:
    """A constant and a function of other files, one of them not imported by the kernel's own."""
    pytest.importorskip("numba")
    package = tmp_path / "pictures"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sizes.py").write_text("SIDE = 2\n")
    area = "from compiled.kernel import kernel\nfrom pictures import (\n    sizes,\n)\nSIDE = sizes.SIDE\n"
    (package / "area.py").write_text(f"{area}@kernel('i8()')\ndef area():\n    return SIDE * SIDE\n")
    whole = "from compiled.kernel import kernel\nfrom pictures.area import area\n"
    (package / "whole.py").write_text(f"{whole}@kernel('i8()')\ndef whole():\n    return 10 * area()\n")
    code = "from pictures.whole import whole; print(whole(), len(whole.stats.cache_hits))"
    found = []
    for side in (2, 2, 3, 2):
        (package / "sizes.py").write_text(f"SIDE = {side}\n")
        found.append(run(code, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "kept")).stdout.split())
    assert found == [["40", "0"], ["40", "1"], ["90", "0"], ["40", "1"]]


@pytest.mark.parametrize("path", sorted(KERNELS), ids=lambda p: p.stem)
def test_sources_are_all_that_a_module_imports(path: Path) -> None:
    """Against syntax trees, which take longer to read."""
    waiting, found = [path], set()
    while waiting:
        if (at := waiting.pop()) not in found:
            found.add(at)
            named = (
                ROOT.joinpath(*name.split(".")) for name in imported(at) if name.startswith(("models.", "shards."))
            )
            waiting += [p for n in named for p in (n.with_suffix(".py"), n / "__init__.py") if p.is_file()]
    assert found <= set(sources(dotted(path), path))
    assert ROOT / "compiled/kernel.py" in sources(dotted(path), path)


def test_nothing_is_kept_by_numbas_own_rule() -> None:
    own = [p for package in ("models", "shards", "trainer", "launch") for p in files_of(ROOT, package)]
    assert len(KERNELS) > 8
    assert not [str(p) for p in own if "cache=True" in p.read_text()], "use compiled.kernel: its sources all count"


@pytest.mark.parametrize("package", ["numba", "llvmlite", "numpy"])
def test_another_version_has_a_folder_of_its_own(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "source.py").touch()
    now, digest = kept.version, kept.digest.__wrapped__
    of_now = digest("source", str(tmp_path / "source.py"))
    monkeypatch.setattr(kept, "version", lambda name: f"{now(name)}.1" if name == package else now(name))
    assert digest("source", str(tmp_path / "source.py")) != of_now


def test_a_folder_that_was_named_is_the_only_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert places(source) == [tmp_path]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    assert places(source) == [tmp_path / "__pycache__", tmp_path / "users/medpair"]


def test_the_first_folder_that_can_be_written_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    (tmp_path / "source.py").touch()
    (tmp_path / "file").touch()
    monkeypatch.setattr(kept, "places", lambda file: [tmp_path / "file", tmp_path / "new", tmp_path / "other"])
    assert folder("source", str(tmp_path / "source.py")).parent == tmp_path / "new"


def test_where_nothing_can_be_written_each_user_is_told_once(tmp_path: Path) -> None:
    """Films and views stay with the libraries, the scan is compiled in every process; all of them name a remedy that works."""
    pytest.importorskip("numba")
    (tmp_path / "file").touch()
    remedy = "name a folder that can be, on a disk of this machine or a shared one: export NUMBA_CACHE_DIR=FOLDER"
    code = (
        "import numpy as np; from compiled.kernel import kernel; from models.transforms.resampling import Resampler\n"
        "from launch import doctor\n"
        "grey, own = np.zeros((20, 30, 1), np.uint8), Resampler(worth=0)\n"
        "print([own.resampled(grey, (40, 40), None) is None for _ in range(2)])\n"
        "print(doctor.machine_code(), doctor.jpegs_of_packs(), doctor.films_decoded(), doctor.views_filtered(), sep='\\n')\n"
        "def twice(x): return x + x\n"
        "twice.__module__ = 'models.layers.scan_numba'\n"
        "twice.__code__ = twice.__code__.replace(co_filename='models/layers/scan_numba.py')\n"
        "print([kernel('i8(i8)', unkept=True)(twice)(4) for _ in range(2)])\n"
    )
    done = run(code, ROOT, NUMBA_CACHE_DIR=str(tmp_path / "file/x"))
    first, *told, last = done.stdout.splitlines()
    assert (first, last) == ("[True, True]", "[8, 8]"), done.stderr
    assert len(told) == 4
    assert all(f"{tmp_path / 'file/x'} (Not a directory)" in line and remedy in line for line in told)
    assert done.stderr.count(remedy) == 2
    assert (
        done.stderr.count("views of grey films are filtered by Pillow alone: compiled machine code cannot be kept") == 1
    )
    assert done.stderr.count("models.layers.scan_numba is compiled anew by every process, for some seconds") == 1


def test_doctor_says_where_machine_code_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folder.cache_clear()
    assert doctor.machine_code().endswith(f"machine code is kept in {tmp_path}")
    folder.cache_clear()


def test_no_place_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    (tmp_path / "source.py").touch()
    monkeypatch.setattr(kept, "places", lambda file: [Path("/dev/null/a"), Path("/dev/null/b")])
    with pytest.raises(NotKeptError, match=r"/dev/null/a \(Not a directory\) and /dev/null/b"):
        folder("source", str(tmp_path / "source.py"))


def test_a_disk_that_is_full_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before numba compiles, and while it writes what it compiled."""
    caching = pytest.importorskip("numba.core.caching")
    from compiled import kernel

    def full(*given: object) -> None:
        raise OSError(122, "Disk quota exceeded")

    (tmp_path / "source.py").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(kept.tempfile, "TemporaryFile", lambda dir: open("/dev/full", "wb", 0))  # noqa: SIM115
    with pytest.raises(NotKeptError, match=r"No space left on device"):
        folder("source", str(tmp_path / "source.py"))
    monkeypatch.setattr(kernel, "folder", lambda module, file: tmp_path)
    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    with pytest.raises(NotKeptError, match=r"Disk quota exceeded.*export NUMBA_CACHE_DIR=FOLDER"):
        kernel.kernel("i8(i8)")(lambda n: n)


def test_other_packages_keep_their_code_where_they_did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """numba has one setting for all that it compiles in a process."""
    config = pytest.importorskip("numba.core.config")
    from compiled import kernel

    monkeypatch.setattr(config, "CACHE_DIR", "theirs")
    monkeypatch.setattr(kernel, "folder", lambda module, file: tmp_path)
    assert kernel.kernel("i8(i8)")(lambda n: n + 1)(2) == 3
    assert list(tmp_path.glob("**/*.nbc"))
    assert config.CACHE_DIR == "theirs"

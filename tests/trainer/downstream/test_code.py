"""The hash of the code that makes a number: what it covers, and what may change without refusing a result."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trainer.downstream import code
from trainer.downstream.code import RUNNER, closure


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the rooms in which files can be changed."""
    for room in code.ROOMS:
        shutil.copytree(code.ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


def hashed() -> str:
    return code._hash_of(closure((RUNNER, "models.methods.slides.gimp")))


@pytest.mark.parametrize(
    "path",
    [
        "trainer/reporting/words.py",
        "models/methods/contrastive/mgi.py",
        "shards/sources/glioma.py",
        "trainer/export/export.py",
    ],
)
def test_code_that_a_fine_tune_never_runs_may_change(tree: Path, path: str) -> None:
    before, whole = hashed(), code._hash_of(sorted((tree / "trainer").rglob("*.py")))
    (tree / path).write_text((tree / path).read_text() + "\n# a remark\n")
    assert hashed() == before
    if path.startswith("trainer/"):
        assert code._hash_of(sorted((tree / "trainer").rglob("*.py"))) != whole, "the tree's hash does see it"


@pytest.mark.parametrize(
    "path",
    [
        "models/methods/slides/gimp.py", "models/finetuned.py", "trainer/loop.py", "trainer/engine/engine.py", "shards/order/plan.py",
        "trainer/downstream/metrics/table.py", "trainer/downstream/targets/read.py", "shards/format/codecs.py",
    ],
)  # fmt: skip
def test_code_that_makes_the_number_may_not(tree: Path, path: str) -> None:
    before = hashed()
    (tree / path).write_text((tree / path).read_text() + "\n# a remark\n")
    assert hashed() != before


def test_imports_inside_functions_and_of_packages_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "models" / "a.py").write_text("def f():\n    from models.sub import b\n")
    (tmp_path / "models" / "sub" / "__init__.py").write_text("")
    (tmp_path / "models" / "sub" / "b.py").write_text("import models.c, numpy\n")
    (tmp_path / "models" / "c.py").write_text("import models.a\n")
    names = [str(p.relative_to(tmp_path)) for p in closure(["models.a"])]
    assert names == ["models/a.py", "models/c.py", "models/sub/__init__.py", "models/sub/b.py"]

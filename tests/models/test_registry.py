"""Methods are found by the names of their files, in families; what is ambiguous is refused when they are listed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models import registry
from models.contract import MethodError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(registry, "METHODS_DIR", tmp_path)
    return tmp_path


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def test_files_and_folders_are_methods_and_their_parts_are_not(folder):
    write(
        folder, "slides/b.py", "slides/__init__.py", "masked/a/method.py", "masked/a/options.py", "masked/a/__init__.py"
    )
    write(
        folder, "masked/_shared.py", "masked/_old/method.py", "_draft/c.py", "__init__.py", "segmentation/__init__.py"
    )
    assert registry.places() == {
        "a": ("masked", "models.methods.masked.a.method"),
        "b": ("slides", "models.methods.slides.b"),
    }
    assert registry.method_names() == ["a", "b"]
    assert registry.families() == {"masked": ("a",), "segmentation": (), "slides": ("b",)}


def test_two_of_one_name_are_refused_at_listing(folder):
    write(folder, "slides/a.py", "masked/a/method.py", "slides/b.py", "masked/b.py")
    with pytest.raises(MethodError) as raised:
        registry.method_names()
    first, second = raised.value.problems
    assert "two methods are called a: models/methods/masked/a/method.py and models/methods/slides/a.py" in first
    assert "two methods are called b" in second


def test_files_that_belong_nowhere_are_refused(folder):
    write(folder, "a.py", "slides/b/options.py")
    with pytest.raises(MethodError) as raised:
        registry.method_names()
    assert [p.partition(";")[0] for p in raised.value.problems] == [
        "models/methods/a.py is in no family",
        "models/methods/slides/b/options.py belongs to no method: its folder has no method.py",
    ]


def test_a_file_that_registers_another_name_is_told(folder, monkeypatch):
    write(folder, "slides/nothing.py")
    monkeypatch.setattr(registry.importlib, "import_module", lambda module: None)
    with pytest.raises(MethodError, match=r"models.methods.slides.nothing registers no method 'nothing'"):
        registry.get_method("nothing")


def test_the_nearest_name_is_given():
    with pytest.raises(MethodError, match="did you mean 'gimp'"):
        registry.get_method("gimb")


def test_one_method_is_loaded_alone():
    code = (
        "import sys; from models.registry import get_method; get_method('gimp')\n"
        "assert 'models.methods.contrastive.mgi' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scripts_outside_find_what_they_import():
    from models.layers.crops import eight_bit
    from models.transforms import crops
    from models.view import shaped_mask

    assert eight_bit is crops.eight_bit
    assert callable(shaped_mask)

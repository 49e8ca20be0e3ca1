"""Which code and recipes run: those of the checkout that a script stands in, or those that a wheel carries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from launch.medpair import COMMANDS, main
from medpair import PACKAGES

ROOT = Path(__file__).parent.parent.parent
SITE = sysconfig.get_paths()["purelib"]
# Without `site`, nothing of an editable installation is found; only the folders that are named.
INSTALLED = "import sys; sys.path[:0] = {paths!r}; from launch.medpair import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder of its own, built from a copy of what is in the repository."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "medpair.py"):
        shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("target")
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), "."]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], cwd=source, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return target


def installed(wheel: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = INSTALLED.format(paths=[str(wheel), SITE])
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=240
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_wheel_carries_its_recipes_and_runs(wheel: Path, tmp_path: Path, demo_cohort: Path) -> None:
    carried = {p.relative_to(wheel) for p in (wheel / "configs").rglob("*.yaml")}
    assert carried == {p.relative_to(ROOT) for p in (ROOT / "configs").rglob("*.yaml")}
    done = installed(
        wheel,
        "pretrain",
        "--method",
        "gimp",
        "--dry-run",
        f"data.path={demo_cohort}",
        f"out={tmp_path / 'run'}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert str(wheel / "configs") in done.stdout, "the recipe is the wheel's"
    assert "trainable" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_script_runs_the_checkout_that_it_stands_in(tmp_path: Path, demo_cohort: Path) -> None:
    """Another copy is first on the path, as an editable installation of another checkout is."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        for name in PACKAGES:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (mine, other):
        recipe = folder / "configs" / "methods" / "gimp" / "demo.yaml"
        recipe.write_text(recipe.read_text() + f"\n# {folder.name}\n")
    shutil.copy(mine / "configs/task/demo_subtype.yaml", mine / "configs/task/only_here.yaml")
    env = {**os.environ, "PYTHONPATH": str(other)}
    commands = (
        ("pretrain.py", "--method", "gimp", "--dry-run", f"data.path={demo_cohort}", "--recipe", "demo"),
        ("finetune.py", "--method", "gimp", "--task", "only_here", "--init", "scratch", "--print-config"),
    )
    for script, *words in commands:
        command = [sys.executable, str(mine / "launch" / script), *words, f"out={tmp_path / 'run'}"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert str(other / "configs") not in done.stdout
        assert str(mine / "configs") in done.stdout or script == "finetune.py"


def test_an_installation_of_before_a_package_says_how_to_renew_it(tmp_path: Path) -> None:
    """What an editable installation knows is what there was when it was made: here all packages but one."""
    known = {*PACKAGES, "medpair.py"} - {"compiled"}
    for name in known:
        (tmp_path / name).symlink_to(ROOT / name)
    done = installed(tmp_path, "models", "list", cwd=tmp_path)
    assert done.returncode == 2
    assert "before it had the package compiled" in done.stderr
    assert f"pip install --no-deps -e {ROOT}" in done.stderr
    assert "Traceback" not in done.stderr
    code = f"import sys; sys.path[:0] = {[str(tmp_path), SITE]!r}; import medpair"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert "ImportError: this installation of medpair was made before" in done.stderr
    (tmp_path / "compiled").symlink_to(ROOT / "compiled")
    assert installed(tmp_path, "models", "list", cwd=tmp_path).returncode == 0


def test_the_packages_of_the_command_are_those_of_the_wheel() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(told) == [f"{name}*" for name in PACKAGES]


def test_the_command_knows_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert main([]) == 2
    assert main(["pretrian"]) == 2
    assert "did you mean 'pretrain'?" in capsys.readouterr().err
    scripts = {p.stem for p in (ROOT / "launch").glob("*.py")} - {"__init__", "medpair", "frame"}
    assert scripts | {"shards", "models"} == set(COMMANDS), "every script of launch/ is a part of the command"


def test_a_part_keeps_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "describe", "gimb"]) == 2
    assert "did you mean 'gimp'?" in capsys.readouterr().err
    assert main(["shards", "info", str(tmp_path)]) == 2
    assert "no dataset.json" in capsys.readouterr().err

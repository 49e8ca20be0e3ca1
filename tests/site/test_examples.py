"""Blocks of the docs that are marked as runnable do run, in this process and in the order of the site."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.medpair import COMMANDS, main
from tests.site.screens import LARGEST
from tests.site.worked import BLOCK, IN_CHECKOUT, PAGES, Block, blocks, kept, page_of, place_of, write_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that all pages share, with the demo cohort where they make it."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "data").mkdir()
    (folder / "data/demo").symlink_to(cohort)
    with contextlib.chdir(folder):
        yield folder


def run(block: Block) -> str:
    """What the block prints; commands in this process, since loading all anew for each would cost most."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        if block.language == "python":
            exec(compile(block.text, "the docs", "exec"), {})
        for command in block.commands:
            if command != "medpair shards demo data/demo":
                assert main(shlex.split(command)[1:]) == 0, command
    return said.getvalue()


@pytest.mark.parametrize("name", PAGES)
def test_runnable_blocks_run(name: str, place: Path) -> None:
    runnable = [b for b in blocks(name) if b.mark == "run"]
    assert runnable, "each page has something that is seen to work"
    for block in runnable:
        said = run(block)
        assert said or block.commands == ["medpair shards demo data/demo"]
        if block.language == "python":
            assert f"```text output\n{said}```" in page_of(name).read_text(), "python -m tests.site.worked"
    assert not (place / "runs").exists(), "what trains is for the script"


@pytest.mark.parametrize("name", PAGES)
def test_outputs_stand_below_their_blocks(name: str) -> None:
    """Each marked block has an output, which the script wrote; nothing of the machine is in it."""
    text = page_of(name).read_text()
    found = [*BLOCK.finditer(text)]
    assert len(found) == len(re.findall(r"^```(?:sh|python) (?:run|worked)", text, re.M)), (
        "a mark that the script does not know"
    )
    assert all(m["output"] for m in found), "python -m tests.site.worked"
    assert "Traceback" not in text


@pytest.mark.parametrize("name", PAGES)
def test_each_page_says_how_long_it_took_and_when(name: str) -> None:
    assert re.match(
        r"# .*\n\n\*All that was run on this page took \d+ s \(20\d\d-\d\d-\d\d; ", page_of(name).read_text()
    )
    assert name == "start" or "](../pictures/" in page_of(name).read_text(), "a picture of what comes out"


def test_pictures_are_small_and_shown() -> None:
    docs = page_of("start").parent
    shown = set(re.findall(r"\]\((?:\.\./)?pictures/([^)]+)\)", "".join(p.read_text() for p in docs.rglob("*.md"))))
    assert {p.name for p in (docs / "pictures").iterdir()} == shown
    assert all(p.stat().st_size < LARGEST for p in (docs / "pictures").iterdir())


@pytest.mark.timeout(300)
def test_the_method_of_the_docs_keeps_the_contract(tmp_path: Path) -> None:
    """In a copy of the checkout, as a reader adds it; two ranks are for the script."""
    (name,) = IN_CHECKOUT
    place = place_of(name, tmp_path)
    write_files(name, place)
    recipes = place / "configs/methods/rotnet"
    for other in ("recommended", "paper"):
        shutil.copy(recipes / "demo.yaml", recipes / f"{other}.yaml")
    words = ["-q", "-p", "no:cacheprovider", "tests/models/test_contract.py", "-k", "rotnet and not ranks"]
    env = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"} | {"PYTHONPATH": str(place)}
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=place, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^1\d passed", done.stdout, re.M), done.stdout


def test_all_commands_of_a_page_exist() -> None:
    """Also those of blocks that nobody runs."""
    for page in (page_of(n) for n in PAGES):
        for line in page.read_text().splitlines():
            if line.startswith("medpair "):
                assert line.split()[1] in COMMANDS, f"{page.name}: {line}"


def test_the_lines_that_are_kept() -> None:
    assert kept("a\nb\nc\n", "") == "a\nb\nc"
    assert kept("a\nb\nc\n", "tail=2") == "...\nb\nc"
    assert kept("a\nb\nc\n", "head=1") == "a\n..."
    assert kept("a\n", "tail=2") == "a"

"""Blocks of the docs that are marked as runnable do run, in this process and in the order of the site."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.medpair import COMMANDS, main
from tests.site.worked import BLOCK, PAGES, Block, blocks, kept, page_of

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
        assert run(block) or block.commands == ["medpair shards demo data/demo"]
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

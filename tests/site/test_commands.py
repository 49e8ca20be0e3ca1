"""Every command line in a block of the docs or the head of a recipe is one that its command takes, also where nobody runs it."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.medpair import COMMANDS
from shards import demo

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
FILES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "configs").rglob("*.yaml")),
]
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```$", re.M | re.S)
HEAD = re.compile(r"^# (?:Command|Demo|Small): +(.*)$", re.M)
LEFT_OUT = re.compile(r"(?:^|\s)#.*| {4,}\S.*|.* \.\.\. .*|.* \./mine\.yaml.*")
"""Comments, what stands in another column, what is not written out, and a layout of one's own, which is one once it is there."""
ASKED = re.compile(
    r"(?:medpair|python -m|(?:python|deepspeed(?: --num_gpus \d+)?) launch/)\W*(\w+)(?:\.py)?(?= |$)(.*)"
)


def commands(path: Path) -> Iterator[str]:
    """Single commands, without comments and optional brackets."""
    text = path.read_text()
    blocks = [m[1] for m in BLOCK.finditer(text)] if path.suffix == ".md" else [m[1] for m in HEAD.finditer(text)]
    for block in blocks:
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            for part in re.split(r"&&|;|\|", LEFT_OUT.sub("", line)):
                yield re.sub(r"\[(--[^]]*)\]", r"\1", part.strip()).replace(" N", " 1")


def parser_of(name: str) -> argparse.ArgumentParser | None:
    """None of commands that have no options."""
    if name in ("shards", "models"):
        return importlib.import_module(f"{name}.__main__").build_parser()  # type: ignore[no-any-return]
    made = getattr(importlib.import_module(f"launch.{name}"), "parser", None)
    return made() if made else None


def refusal(command: str) -> str | None:
    """Why a command line is none; also None for what is no command of ours."""
    found = ASKED.match(command)
    if not found or found[1] not in COMMANDS:
        return f"no command {found[1]}" if found and command.startswith(("medpair", "python launch")) else None
    parser, said = parser_of(found[1]), io.StringIO()
    if parser is None or not found[2]:
        return None
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            _, left = parser.parse_known_args(shlex.split(found[2]))
    except SystemExit as e:
        return said.getvalue().splitlines()[-1] if e.code else None
    return f"unknown: {left}" if any(w.startswith("--") for w in left) else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_is_one(path: Path) -> None:
    assert not [f"{c}: {why}" for c in commands(path) if (why := refusal(c))]


def test_wrong_commands_are_seen() -> None:
    assert "no command" in str(refusal("medpair fintune --task x"))
    assert "unknown: ['--rot'" in str(refusal("python launch/compare.py runs --out r --rot 1"))
    assert "invalid choice" in str(refusal("deepspeed --num_gpus 2 launch/slurm.py pretrian"))
    assert refusal("python -m shards pack") is not None
    assert refusal("nvidia-smi --list") is None
    assert sum(1 for p in FILES for c in commands(p) if ASKED.match(c)) > 150


@pytest.mark.parametrize("name", ["predict", "sites"])
def test_cohorts_of_two_hospitals_are_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that draw the demo cohort anew, with the first patients alone."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / f"docs/{name}.md").read_text(), re.M | re.S)
    made: list[Any] = []

    def generate(folder: Path) -> None:
        made.extend([(folder, demo.image(who, number)[0].shape, row.labels) for row, who, number in demo.samples()[:3]])

    monkeypatch.setattr(demo, "generate", generate)
    exec(compile(block, name, "exec"), {})
    assert len({folder for folder, _, _ in made}) == {"predict": 2, "sites": 1}[name]
    assert {shape for _, shape, _ in made} == {(96, 96, 1)} or {len(shape) for _, shape, _ in made} == {2}

"""The blocks of commands of the docs that are no worked examples: their names, and their lines as the words of commands."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^ *```(?P<info>[^\n`]*)\n(?P<text>.*?)^ *```$", re.M | re.S)
UNMARKED = ("sh", "python", "")
"""What is marked `run`, `worked` or `file=` is for tests/site/worked.py; the rest is output, tables and YAML."""
FIRST = re.compile(r" *(?:python3? |medpair |deepspeed |make |pip |\. )")
OURS = re.compile(
    r"(?:medpair |python -m (?=shards|models)|(?P<ranks>deepspeed (?:--num_gpus (?P<world>\d+) )?|python )launch/)(?P<rest>.*)"
)
REMARK = re.compile(r" {2,}#| {4,}| \\$")
NO_NAME = ("#", "from ", "import ", "export ", "D=")
ASSIGNED = re.compile(r"(\w+)=(\S+)$")


@dataclass(frozen=True)
class Command:
    """What one line asks for: `words` behind `medpair`, on `world` ranks."""

    words: tuple[str, ...]
    world: int = 1


@dataclass(frozen=True)
class Guide:
    """A block: the page, as its links name it, and the first command without its remark are its name."""

    page: str
    language: str
    text: str

    @property
    def name(self) -> str:
        first = next(line for line in self.text.splitlines() if line and not line.startswith(NO_NAME))
        return f"{self.page}: {REMARK.split(first)[0].strip()}"

    def lines(self) -> Iterator[str]:
        """Single commands, joined over line ends, without remarks; of what stands in brackets, what they hold."""
        for line in re.sub(r"\s*\\\n\s*", " ", self.text).splitlines():
            bare = re.sub(r"(?:^|\s)#.*| {4,}\S.*", "", line)
            for part in bare.split("&&"):
                if command := re.sub(r"\[(--[^]]*)\]", r"\1", part).strip():
                    yield command


@functools.cache
def guides() -> list[Guide]:
    """All blocks of commands or Python without a mark, in the order of pages."""
    found = []
    for path in PAGES:
        page = path.name if path.parent == ROOT else path.relative_to(ROOT / "docs").as_posix()
        for m in BLOCK.finditer(path.read_text()):
            if m["info"] in ("sh", "python") or (m["info"] in UNMARKED and FIRST.match(m["text"])):
                found.append(Guide(page, m["info"], m["text"]))
    return found


def commands(guide: Guide, names: dict[str, str]) -> Iterator[Command]:
    """The block's commands with what stands for the reader's own (`DIR`, `RUN`) replaced: names are whole words."""
    for line in guide.lines():
        for name, own in sorted(names.items(), key=lambda n: -len(n[0])):
            line = re.sub(rf"(?<![\w$-]){re.escape(name)}(?![\w-])", lambda _: own, line)  # noqa: B023
        if given := ASSIGNED.match(line):
            names = {**names, f"${given[1]}": given[2]}
            continue
        if line.startswith("make "):  # a target's commands are those of another block
            continue
        asked = OURS.match(os.path.expandvars(line))
        assert asked, f"{guide.name}: no command of medpair: {line}"
        first, *rest = shlex.split(asked["rest"])
        yield Command((first.removesuffix(".py"), *rest), int(asked["world"] or 1))


def the(beginning: str) -> Guide:
    """The one block of that name, or whose name begins so."""
    all_of_them = guides()
    (found,) = [g for g in all_of_them if g.name == beginning] or [
        g for g in all_of_them if g.name.startswith(beginning)
    ]
    return found

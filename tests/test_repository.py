"""What no tool of the house checks: links and names in prose, sizes, licences; and that a commit is checked as `make check` does it."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, requires
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ROOMS = ("trainer", "models", "shards", "compiled", "launch", "configs", "tests", "docs", "findings", ".ci")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAME = re.compile(r"`((?:trainer|models|shards|launch|tests)(?:\.[A-Za-z_]\w*)+)(?:\(\))?`")
PATH = re.compile(
    r"\b((?:trainer|models|shards|launch|configs|tests|docs|findings)/[\w/.-]+\.(?:py|yaml|md|sh|json))\b"
)
WIDEST = 120
"""Characters of a line of prose (docs/style.md)."""
UNIT = re.compile(r"(?:`[^`]*`|!?\[[^\]]*\]\([^)\s]*\)|[^\s`\[]|\[)+")
"""What a line is not broken in: a word, code, a link."""
LARGEST = 300_000
"""Bytes of a file: data belong into data sets."""
FREE = ("apache", "mit", "bsd", "mpl", "isc", "python software foundation", "psf", "hpnd", "cmu", "unlicense", "zlib")
"""Licences that whoever uses an Apache-licensed program may take with it."""


def kept(*endings: str) -> Iterator[Path]:
    """The project's files: those at the top and those of its rooms."""
    for path in (*ROOT.glob("*"), *(p for room in ROOMS for p in (ROOT / room).rglob("*"))):
        if path.is_file() and "__pycache__" not in path.parts and (not endings or path.suffix in endings):
            yield path


def headings(page: Path) -> set[str]:
    """Anchors of a page as GitHub makes them."""
    said = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in said}


def dead_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(page.read_text()):
        place, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = page.parent / place if place else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            yield f"{page.relative_to(ROOT)}: {link}"


@cache
def leads_somewhere(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for part in parts[n:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def dead_names(text: str, folder: Path = ROOT) -> Iterator[str]:
    """Names of code and of files that prose gives and that are not there; PLACEHOLDERS in capitals stand for others, and a page may show
    a file as one to be written."""
    shown = set(re.findall(r"^```\w+ file=(\S+)$", text, re.M))
    yield from (name for name in NAME.findall(text) if not leads_somewhere(name))
    for path in PATH.findall(text):
        if (
            path not in shown
            and not re.search(r"[A-Z]{4,}", path)
            and not (ROOT / path).exists()
            and not (folder / path).exists()
        ):
            yield path


@pytest.mark.parametrize("page", kept(".md"), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not list(dead_links(page))


def test_names_in_prose_are_there() -> None:
    """In pages and YAML files, and in the code apart from tests, which make files of their own."""
    pages = [p for p in kept(".md", ".yaml", ".py") if "tests" not in p.parts]
    dead = {str(p.relative_to(ROOT)): found for p in pages if (found := list(dead_names(p.read_text(), p.parent)))}
    assert not dead


def wide_lines(page: Path) -> Iterator[str]:
    """Lines of prose that could be shorter; blocks of code, tables, headings and what is generated are none."""
    code = made = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        code ^= line.lstrip().startswith("```")
        made = "generated" in line if line.startswith("<!--") else made
        plain = not (code or made or line.lstrip().startswith(("|", "#", "<")))
        if plain and len(line) > WIDEST and len(UNIT.findall(line)) > 1:
            yield f"{page}:{number}"


def test_prose_fits_a_screen() -> None:
    assert not [where for page in kept(".md") for where in wide_lines(page)]


def test_a_wide_line_is_seen(tmp_path: Path) -> None:
    page, long = tmp_path / "page.md", "word " * 25
    page.write_text(
        f"`{long}`\n| {long}|\n```\n{long}\n```\n{long}\n<!-- a: generated -->\n{long}\n<!-- end -->\na {long}\n"
    )
    assert list(wide_lines(page)) == [f"{page}:6", f"{page}:10"]


COMMAND = re.compile(r" {4}(?:deepspeed|python|medpair)\b")


def cut_commands(page: Path) -> Iterator[str]:
    """Indented commands that go on in the next line, where a shell would take that for another one."""
    lines = re.sub(r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), page.read_text(), flags=re.M | re.S).split("\n")
    for number, (line, after) in enumerate(pairwise(lines), 1):
        goes_on = after.startswith("    ") and not COMMAND.match(after)
        if COMMAND.match(line) and goes_on and not line.endswith("\\"):
            yield f"{page}:{number}"


def test_commands_are_whole() -> None:
    assert not [where for page in kept(".md") for where in cut_commands(page)]


def test_a_cut_command_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "    python a\n    python b\n\n    python c \\\n      d\n```sh\n    python e\n    f\n```\n    medpair g\n    h=1\n"
    )
    assert list(cut_commands(page)) == [f"{page}:10"]


def test_a_dead_name_and_a_dead_link_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(dead_names("`trainer.loop.train`, docs/data.md, configs/task/NAME.yaml")) == []
    assert list(dead_names("`trainer.loop.gone`, docs/gone.md")) == ["trainer.loop.gone", "docs/gone.md"]
    monkeypatch.setattr("tests.test_repository.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# One `x`\n[a](#one-x) [b](#two) [c](gone.md) [d](https://example.org/e)\n")
    assert list(dead_links(page)) == ["page.md: #two", "page.md: gone.md"]


def test_no_file_is_large() -> None:
    assert not [f"{p.relative_to(ROOT)}: {n:,} bytes" for p in kept() if (n := p.stat().st_size) > LARGEST]


def licence_of(package: str) -> str:
    """What a package says of its licence; where it says nothing, how its licence file begins."""
    about = distribution(package)
    said = [about.metadata.get("License-Expression") or "", (about.metadata.get("License") or "")[:200]]
    said += [c for c in about.metadata.get_all("Classifier") or [] if c.startswith("License")]
    if not any(said):
        said = [Path(str(f.locate())).read_text()[:400] for f in about.files or () if "licenses/LICENSE" in str(f)]
    return " ".join(said).lower()


def test_every_dependency_may_be_used_freely() -> None:
    """Of those that everybody installs; the extras are the user's choice."""
    strange = {}
    for line in requires("medpair") or []:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        words = licence_of(wanted.name)
        if not any(re.search(rf"\b{licence}", words) for licence in FREE):
            strange[wanted.name] = words
    assert not strange


def test_a_commit_is_checked_as_make_check_does() -> None:
    """Each hook of pre-commit is a line of `make lint`, or one of the tests that `make check` runs."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    lines = subprocess.run(["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    entries = [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    own = ".venv/bin/python -m pytest -q tests/test_repository.py"
    assert own in entries
    assert [e for e in entries if e != own] == [
        w for w in lines.splitlines() if re.match(r"\.venv/bin/(ruff|mypy|codespell)", w)
    ]

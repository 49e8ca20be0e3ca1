"""The worked examples of the docs: what stands in their marked blocks is run, and what it printed is written below each.

    python -m tests.site.worked [PAGE ...]      runs all of them in a new folder, in the order of the site; minutes

A block is marked behind its language: `run` (the tests run it too, see tests/site/test_examples.py) or `worked` (this script alone,
since it takes longer). `head=N` and `tail=N` keep that many lines of the output. Blocks of all pages share a folder, where a later
page finds the runs of an earlier one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("start", "examples/slides-rna", "examples/films-reports", "examples/eyes-genotypes", "examples/mri-expression",
         "examples/slurm", "examples/compare", "examples/new-method")  # fmt: skip
BLOCK = re.compile(
    r"^```(?P<language>sh|python) (?P<mark>run|worked)(?P<keep> (?:head|tail)=\d+)?\n(?P<text>.*?)^```\n"
    r"(?P<output>\n```text output\n.*?^```\n(?:\n\*Took [^\n]*\*\n)?)?",
    re.M | re.S,
)
PICTURES = {
    "start": {"preview.png": "demo-preview.png", "runs/mgi/projection.png": "mgi-features.png"},
    "examples/slides-rna": {"runs/gimp/projection.png": "gimp-features.png"},
}
"""Of a page: what its blocks drew, and what it is called in docs/pictures."""
SHELL = 'set -euo pipefail\nmedpair() { "$PYTHON" -m launch.medpair "$@"; }\n'
NOISE = re.compile(r"^\[.*\[WARNING\].*$\n?|^.*FutureWarning.*$\n?", re.M)


@dataclass(frozen=True)
class Block:
    language: str
    mark: str
    text: str
    keep: str

    @property
    def commands(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith("medpair ")]


def page_of(name: str) -> Path:
    return ROOT / "docs" / f"{name}.md"


def blocks(name: str) -> Iterator[Block]:
    for m in BLOCK.finditer(page_of(name).read_text()):
        yield Block(m["language"], m["mark"], m["text"], (m["keep"] or "").strip())


def kept(output: str, keep: str) -> str:
    """The lines that `head=N` or `tail=N` keeps, with a mark where others were left out."""
    lines = output.rstrip("\n").splitlines()
    which, _, count = keep.partition("=")
    if not keep or len(lines) <= int(count):
        return "\n".join(lines)
    n = int(count)
    return "\n".join(["...", *lines[-n:]] if which == "tail" else [*lines[:n], "..."])


def ran(block: Block, folder: Path) -> tuple[str, float]:
    """What a block printed, and the seconds it took. It must end well."""
    words = ["bash", "-c", SHELL + block.text] if block.language == "sh" else [sys.executable, "-c", block.text]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "NO_COLOR": "1", "COLUMNS": "118"}
    env |= {"MEDPAIR_CACHE": str(folder / "cache"), "DS_ACCELERATOR": "cpu"}
    began = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"status {done.returncode} of:\n{block.text}\n{done.stdout}")
    said = NOISE.sub("", done.stdout).replace(f"{folder}/", "").replace(f"{ROOT}/", "")
    return said.replace(f"{sys.prefix}/", ".venv/"), time.monotonic() - began


def write(name: str, folder: Path) -> float:
    """Runs the blocks of a page and writes their output below them; seconds of all."""
    total = 0.0

    def again(m: re.Match[str]) -> str:
        nonlocal total
        block = Block(m["language"], m["mark"], m["text"], (m["keep"] or "").strip())
        output, seconds = ran(block, folder)
        total += seconds
        took = f"\n*Took {seconds:.0f} s.*\n" if block.mark == "worked" else ""
        mark = f"```{m['language']} {m['mark']}{m['keep'] or ''}\n{m['text']}```\n"
        return f"{mark}\n```text output\n{kept(output, block.keep)}\n```\n{took}"

    page = page_of(name)
    page.write_text(BLOCK.sub(again, page.read_text()))
    return total


def keep_pictures(name: str, folder: Path) -> None:
    """Copies what a page shows, in few colours and no wider than a page: a repository is no place for large files."""
    from PIL import Image

    for drawn, called in PICTURES.get(name, {}).items():
        picture = Image.open(folder / drawn).convert("RGB")
        picture.thumbnail((900, 900))
        picture.quantize(64).save(ROOT / "docs/pictures" / called, optimize=True)


def main() -> None:
    names = sys.argv[1:] or list(PAGES)
    place = os.environ.get("MEDPAIR_WORKED")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(place or temporary)
        for name in names:
            print(f"{name}: {write(name, folder):.0f} s", flush=True)
            keep_pictures(name, folder)


if __name__ == "__main__":
    main()

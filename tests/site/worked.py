"""The worked examples of the docs: what stands in their marked blocks is run, and what it printed is written below each.

    python -m tests.site.worked [PAGE ...]      runs all of them in a new folder, in the order of the site; minutes

A block is marked behind its language: `run` (the tests run it too, see tests/site/test_examples.py) or `worked` (this script alone,
since it takes longer). `head=N` and `tail=N` keep that many lines of the output. What a block of `file=PATH` shows is written there
before those below it run. Blocks of all pages share a folder, where a later page finds the runs of an earlier one; MEDPAIR_WORKED names
it, and it then stays.
Under its title a page says how long its blocks took, and when. Pictures of pages in a browser need Debian's chromium
(tests/site/screens.py), the page on Slurm what the tests of Slurm need.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.site import screens

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
    "examples/films-reports": {"runs/films/projection.png": "convirt-features.png"},
    "examples/new-method": {"checkout/runs/rotnet/projection.png": "rotnet-features.png"},
    "examples/eyes-genotypes": {"runs/eyes/projection.png": "mrm-relation-features.png"},
}
"""Of a page: what its blocks drew, and what it is called in docs/pictures."""
SHELL = 'set -euo pipefail\nmedpair() { "$PYTHON" -m launch.medpair "$@"; }\npython() { "$PYTHON" "$@"; }\n'
FILE = re.compile(r"^```\w+ file=(?P<path>\S+)\n(?P<text>.*?)^```$", re.M | re.S)
ON_SLURM = ("examples/slurm",)
"""Pages whose blocks are given on the login node of a Slurm, which the tests' cluster is."""
IN_CHECKOUT = ("examples/new-method",)
"""Pages whose files belong into a checkout: they get a copy of this one."""
TITLE = re.compile(r"\A(# .*\n)\n(?:\*All that was run on this page took [^*]*\*\n\n)?")
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


def place_of(name: str, folder: Path) -> Path:
    """Where the blocks of a page run."""
    place = folder
    if name in IN_CHECKOUT:
        place = folder / "checkout"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for path in filter(None, tracked.split("\0")):
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, place / path)
    return place


def write_files(name: str, place: Path, before: int | None = None) -> None:
    """The files that a page shows, all of them or those that stand before a place of its text."""
    for m in FILE.finditer(page_of(name).read_text()):
        if before is None or m.start() < before:
            (place / m["path"]).parent.mkdir(parents=True, exist_ok=True)
            (place / m["path"]).write_text(m["text"])


@contextmanager
def environment(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """Of the blocks of a page: nothing of this machine's, or that of a Slurm which ends with the page."""
    own = {"NO_COLOR": "1", "COLUMNS": "118", "MEDPAIR_CACHE": str(folder / "cache"), "DS_ACCELERATOR": "cpu"}
    if name not in ON_SLURM:
        yield {**os.environ, **own}
        return
    from tests.cluster.slurm_cluster import Cluster

    with tempfile.TemporaryDirectory() as root:
        cluster = Cluster(Path(root) / "c")
        try:
            yield {**cluster.env, **own, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        finally:
            cluster.stop()


def ran(block: Block, place: Path, env: dict[str, str]) -> tuple[str, float]:
    """What a block printed, and the seconds it took. It must end well."""
    words = ["bash", "-c", SHELL + block.text] if block.language == "sh" else [sys.executable, "-c", block.text]
    code = place if (place / "launch").is_dir() else ROOT
    env = {**env, "PYTHONPATH": str(code), "PYTHON": sys.executable}
    began = time.monotonic()
    done = subprocess.run(words, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"status {done.returncode} of:\n{block.text}\n{done.stdout}")
    said = NOISE.sub("", done.stdout)
    for path in (place, *([place.parent] if code == place else []), ROOT):
        said = said.replace(f"{path}/", "")
    return said.replace(f"{sys.prefix}/", ".venv/"), time.monotonic() - began


def taken(seconds: float, processor: float | None) -> str:
    """What stands under a page's title; jobs of a Slurm are no children whose processor time would be known."""
    when = f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}"
    of_it = "" if processor is None else f", {processor:.0f} s of processor time"
    return f"*All that was run on this page took {seconds:.0f} s ({when}){of_it}.*"


def write(name: str, folder: Path) -> float:
    """Runs the blocks of a page and writes their output below them, and under the title how long all of it took; seconds of all."""
    total, before, place = 0.0, os.times(), place_of(name, folder)

    def again(m: re.Match[str]) -> str:
        nonlocal total
        block = Block(m["language"], m["mark"], m["text"], (m["keep"] or "").strip())
        write_files(name, place, m.start())
        output, seconds = ran(block, place, env)
        total += seconds
        took = f"\n*Took {seconds:.0f} s.*\n" if block.mark == "worked" else ""
        mark = f"```{m['language']} {m['mark']}{m['keep'] or ''}\n{m['text']}```\n"
        return f"{mark}\n```text output\n{kept(output, block.keep)}\n```\n{took}"

    page = page_of(name)
    with environment(name, folder) as env:
        text = BLOCK.sub(again, page.read_text())
    now = os.times()
    spent = now.children_user + now.children_system - before.children_user - before.children_system
    processor = None if name in ON_SLURM else spent
    page.write_text(TITLE.sub(lambda m: f"{m[1]}\n{taken(total, processor)}\n\n", text, count=1))
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
            screens.take(name, folder)


if __name__ == "__main__":
    main()

"""Pictures of pages in a browser for the docs: TensorBoard over a run, and reports of `compare`, as a reader sees them.

    python -m tests.site.screens FOLDER      FOLDER: where `python -m tests.site.worked` left its runs (MEDPAIR_WORKED)

Needs Debian's chromium. `tests.site.worked` calls it for each page that shows such pictures. TensorBoard is asked on this machine alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.launch.chromium import Browser, browser
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs/pictures"
LARGEST = 150_000
"""Bytes of a picture."""
CURVES = "document.querySelectorAll('line-chart canvas, line-chart svg path').length"
WITHOUT_SETTINGS = (
    "Array.from(document.querySelectorAll('button')).find(b => b.textContent.includes('Settings')).click()"
)
TAGS = "loss|top1|grad"
SHOWN_S = 60.0


@dataclass(frozen=True)
class Screen:
    """A picture of a page: `at` is what stands at its upper edge, `first` what a reader has done before."""

    name: str
    page: str
    width: int
    height: int
    at: str = "document.body"
    first: str = ""


def figure(words: str) -> str:
    """The first figure of a report whose title begins so."""
    return (
        f"Array.from(document.querySelectorAll('figure')).find(f => f.querySelector('img').alt.startsWith('{words}'))"
    )


SCREENS = {
    "start": (Screen("tensorboard.png", "runs/mgi", 1180, 760, first=WITHOUT_SETTINGS),),
    "examples/slurm": (Screen("requeued.png", "runs/queued", 1180, 620, first=WITHOUT_SETTINGS),),
    "examples/mri-expression": (Screen("lesions.png", "report-lesions/index.html", 900, 700, figure("Examples")),),
    "examples/compare": (
        Screen("report-1280.png", "report/index.html", 1280, 800, "document.querySelector('.scroll').previousElementSibling"),
        Screen("report-forest.png", "report/index.html", 900, 420, figure("Differences from the best")),
        Screen("report-390.png", "report/index.html", 390, 760, "document.querySelector('.scroll').previousElementSibling"),
    ),
}  # fmt: skip
"""By page of the docs."""


def take(name: str, folder: Path) -> None:
    """The pictures of one page, from what its blocks left in the folder."""
    if name not in SCREENS:
        return
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as b:
        for screen in SCREENS[name]:
            source = folder / screen.page
            assert source.exists(), f"{source} is not there: python -m tests.site.worked {name}"
            if source.is_file():
                shoot(b, source.resolve().as_uri(), screen)
            else:
                with tensorboard(source) as address:
                    shoot(b, address, screen, CURVES)


def shoot(b: Browser, address: str, screen: Screen, until: str = "1") -> None:
    """Opens, waits until the expression says a number that stays, and keeps the picture in as many colours as it needs to be small."""
    b.open(address, screen.width, screen.height)
    settle(b, until)
    if screen.first:
        b.run(screen.first)
        settle(b, until)
    b.run(f"{screen.at}.scrollIntoView()")
    with tempfile.TemporaryDirectory() as folder:
        b.picture(Path(folder) / "screen.png")
        picture = Image.open(Path(folder) / "screen.png").convert("RGB")
    small(picture, PICTURES / screen.name)


def settle(b: Browser, until: str) -> None:
    """Waits for an expression of the page: above 0, and the same twice in a row."""
    ends, before = time.monotonic() + SHOWN_S, 0
    while (now := b.run(until)) < 1 or now != before:
        assert time.monotonic() < ends, f"{until}: {now} after {SHOWN_S:.0f} s"
        before = now
        b.run("new Promise(done => setTimeout(done, 500))", waits=True)


def small(picture: Image.Image, path: Path) -> None:
    """Writes a PNG under `LARGEST` bytes, with fewer colours where it takes that."""
    for colours in (256, 128, 64, 32, 16):
        picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            return
    raise SystemExit(f"{path}: {path.stat().st_size} bytes in 16 colours: show less of the page")


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """TensorBoard over a folder of event files; its address, once it answers."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", str(port),
         "--load_fast=false"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "Press CTRL+C" in line:
                break
        yield f"http://127.0.0.1:{port}/?darkMode=false&tagFilter={TAGS}#timeseries"
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    for page in SCREENS:
        take(page, Path(sys.argv[1]))

"""Pictures of pages in a browser, as the docs show them: of a small report, and of TensorBoard over a small run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from launch.compare import main
from tests.launch import chromium
from tests.site import screens
from tests.trainer.reporting.runs import SCRATCH, write

pytestmark = pytest.mark.slow


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    chromium.needed()
    monkeypatch.setattr(screens, "PICTURES", tmp_path / "pictures")
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def looked_at(pictures: Path, page: str) -> None:
    """The pictures of a page have their sizes, are small files, and show something."""
    for screen in screens.SCREENS[page]:
        path = pictures / screen.name
        assert path.stat().st_size < screens.LARGEST
        with Image.open(path) as picture:
            assert picture.size == (screen.width, screen.height)
            grey = np.asarray(picture.convert("L"))
        assert (grey < 128).mean() > 0.001, f"{screen.name}: an empty page"


def test_a_report_as_the_docs_show_it(pictures: Path, tmp_path: Path) -> None:
    for i, words in enumerate(({}, SCRATCH)):
        write(tmp_path / f"runs/{i}", "regression", 0.3 + 0.3 * i, (0,), 40, method="mgi", task="t", **words)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "report"), "--draws", "100"]) == 0
    screens.take("examples/compare", tmp_path)
    looked_at(pictures, "examples/compare")


def test_tensorboard_as_the_docs_show_it(pictures: Path, tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "runs/mgi")) as writer:
        for step in range(20):
            for tag in ("loss/pair", "val/loss/pair", "top1/image", "grad_norm"):
                writer.add_scalar(tag, 1 / (1 + step), step)
    screens.take("start", tmp_path)
    looked_at(pictures, "start")


def test_a_page_without_its_runs_says_what_makes_them(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"python -m tests\.site\.worked start"):
        screens.take("start", tmp_path)

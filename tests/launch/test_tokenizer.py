"""The command that makes a code book of a data set's images: the same one from the same images, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.tokenizer import main
from models.__main__ import main as models
from models.layers.code_book import CodeBook
from tests.trainer.launching import small_cohort

SMALL = ["--image-size", "48", "--patch", "6", "--cell", "6", "--codes", "8", "--components", "4", "--choices", "2"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cohort(tmp_path_factory.mktemp("images"))


def test_a_code_book_of_a_data_set(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        words = [str(cohort), "--out", str(tmp_path / f"{name}.safetensors"), *SMALL, "--cells", "900"]
        assert main(words) == 0
    assert "8 codes of cells of 6 pixels" in capsys.readouterr().out
    a, b = ((tmp_path / f"{n}.safetensors").read_bytes() for n in "ab")
    assert a == b
    book = CodeBook.read(tmp_path / "a.safetensors")
    assert (book.cell, book.codes, book.axes_QP.shape) == (6, 8, (4, 108))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "codes.txt"], "a code book is a .safetensors file"),
        (["--out", "nowhere/codes.safetensors"], "there is no folder"),
        (["--cell", "7"], "--cell 7: larger than the patch, 6"),
        (["--patch", "7"], "--image-size 48: not a multiple of the patch, 7"),
        (["--area", "0.8", "0.2"], "give two shares within"),
        (["--split", "test"], "those of held-back images would be a leak"),
        (["--split", "holdout"], "no split 'holdout'"),
        (["--codes", "1"], "at least 2 codes"),
        (["--cells", "20", "--codes", "16"], "for 16 codes: give more or larger images"),
    ],
)
def test_what_makes_no_code_book_is_told(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    if "--out" in words:
        words = ["--out", str(tmp_path / words[1])]
    assert main([str(cohort), "--out", str(tmp_path / "codes.safetensors"), *SMALL, *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_of_methods_starts_it(cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "codes.safetensors"
    words = ["tokenizer", str(cohort), "--out", str(out), *SMALL, "--cells", "900"]
    assert models([*words, "--split", "test"]) == 2
    assert "would be a leak" in capfd.readouterr().err
    assert models(words) == 0
    assert CodeBook.read(out).codes == 8


def test_a_file_that_is_there_is_not_overwritten(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "codes.safetensors"
    out.write_bytes(b"kept")
    assert main([str(cohort), "--out", str(out), *SMALL]) == 2
    assert "there already" in capsys.readouterr().err
    assert out.read_bytes() == b"kept"


def test_data_without_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "codes.safetensors")]) == 2
    assert str(tmp_path) in capsys.readouterr().err

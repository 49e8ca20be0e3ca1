"""Sets as they arrive when something went wrong: refused at the command line by kind, with a count and names, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.read.dataset import Dataset
from tests.shards.layout import miniatures as mini
from tests.shards.layout.films import film, grey
from tests.shards.layout.test_layouts import made


def photographs(root: Path) -> list[Path]:
    return sorted((root / "train_images").iterdir())


def films(root: Path) -> list[Path]:
    """The miniature of RSNA with its films as DICOM."""
    shutil.rmtree(root / "stage_2_train_images")
    return [
        film(root / "stage_2_train_images" / f"{mini.rsna_name(i)}.dcm", grey(i, 8), bits=8) for i in range(mini.FILMS)
    ]


def missing(root: Path) -> None:
    for path in photographs(root)[:3]:
        path.unlink()


def cut(root: Path) -> None:
    for path in photographs(root)[:2]:
        path.write_bytes(path.read_bytes()[:-200])


def empty(root: Path) -> None:
    for path in photographs(root)[:2]:
        path.write_bytes(b"")


def a_page_of_the_portal(root: Path) -> None:
    for path in photographs(root)[:2]:
        path.write_text("<!DOCTYPE html><title>Sign in</title>")


def packed(root: Path) -> None:
    shutil.make_archive(str(root / "train_images"), "zip", root, "train_images")
    shutil.rmtree(root / "train_images")


def other_columns(root: Path) -> None:
    (root / "train.csv").write_text((root / "train.csv").read_text().replace("diagnosis", "level"))


def other_release(root: Path) -> None:
    (root / "train.csv").write_text((root / "train.csv").read_text().replace("ab12cd34", "ab12cd35"))


def part_of_a_table(root: Path) -> None:
    text = (root / "stage_2_detailed_class_info.csv").read_text()
    (root / "stage_2_detailed_class_info.csv").write_text(text[: len(text) // 2])


def many_kinds_of_films(root: Path) -> None:
    here = films(root)
    for i in (0, 1):
        film(here[i], np.zeros((8, 8, 3), np.uint8), bits=8, kind="RGB", PlanarConfiguration=0)
    for i in (2, 3, 4):
        film(here[i], grey(i, 8), bits=8, BurnedInAnnotation="YES")
    film(here[5], grey(5, 8), bits=8, PixelSpacing=[0.1, 0.2])
    for i in (6, 7):
        here[i].write_bytes(here[i].read_bytes()[:200])
    here[8].write_text("no film")
    here[9].unlink()


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("aptos2019", missing, ["3 of 12 rows have no file for 'image' (such as 'train_images/0000ab12cd34.png'", "--partial"]),
        ("aptos2019", cut, ["0000ab12cd34.png", "0001ab12cd34.png"]),
        ("aptos2019", empty, ["0000ab12cd34.png", "0001ab12cd34.png"]),
        ("aptos2019", a_page_of_the_portal, ["0000ab12cd34.png", "0001ab12cd34.png"]),
        ("aptos2019", packed, ["12 of 12 rows have no file for 'image'", "unpack the 1 archives that lie there (train_images.zip)"]),
        ("aptos2019", other_columns, ["no column diagnosis", "a table of another release"]),
        ("aptos2019", other_release, ["12 of 12 rows have no file for 'image'", "0000ab12cd35.png"]),
        ("rsna_pneumonia", part_of_a_table, ["stage_2_detailed_class_info.csv"]),
        ("rsna_pneumonia", many_kinds_of_films, ["1 of 12 rows have no file for 'image'"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_nothing_is_written(
    name: str, damage: Callable[[Path], None], says: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(name, tmp_path)
    damage(root)
    assert main(["source", name, "--root", str(root), "--out", str(tmp_path / "set")]) == 2
    said = capsys.readouterr().err
    for words in says:
        assert words in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root"]


def test_every_kind_of_film_that_cannot_be_taken_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made("rsna_pneumonia", tmp_path)
    many_kinds_of_films(root)
    words = ["source", "rsna_pneumonia", "--root", str(root), "--out", str(tmp_path / "set"), "--partial", "--all"]
    assert main(words) == 2
    said = capsys.readouterr().err
    for kind in (
        "2 files of 'image' cannot be taken: a colour film (RGB)",
        "3 files of 'image' cannot be taken: writing burned into the picture",
        "1 files of 'image' cannot be taken: pixels that are not square (PixelSpacing)",
        "1 files of 'image' cannot be taken: no DICOM file",
        mini.rsna_name(6),
        mini.rsna_name(7),
    ):
        assert kind in said, kind
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root"]


def test_images_that_the_table_lacks_and_the_reverse_are_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made("aptos2019", tmp_path)
    missing(root)
    for i in range(2):
        mini.picture(root / "train_images" / f"stranger{i}.png", 50 + i, colour=True)
    words = ["source", "aptos2019", "--root", str(root), "--out", str(tmp_path / "set"), "--partial"]
    assert main([*words, "--split-fractions", "0.6,0.2,0.2"]) == 0
    said = capsys.readouterr().out
    assert "3 of 12 samples lack a file and are left out (--partial)" in said
    assert "2 files for 'image' are in no table, such as train_images/stranger0.png" in said
    left = (tmp_path / "set" / "unmatched.csv").read_text()
    assert left.count("no such file (--partial)") == 3
    assert left.count("a file for 'image' that the tables do not list") == 2
    with Dataset.open(tmp_path / "set") as data:
        assert len(data) == 9

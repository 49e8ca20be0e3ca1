"""Sets as they arrive when something went wrong: refused at the command line by kind, with a count and names, nothing written."""

from __future__ import annotations

import gzip
import re
import shutil
import zipfile
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


def endings(kind: str, which: slice = slice(None, None, 2)) -> Callable[[Path], None]:
    """Files as another system has named them: X.JPG."""

    def rename(root: Path) -> None:
        for path in sorted(root.rglob(f"*{kind}"))[which]:
            path.rename(path.with_suffix(kind.upper()))

    return rename


def zipped(*names: str) -> Callable[[Path], None]:
    """As they were downloaded: packed, a folder or a table each."""

    def pack(root: Path) -> None:
        for path in (root / name for name in names):
            with zipfile.ZipFile(f"{path}.zip", "w") as packed:
                for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                    packed.write(file, file.relative_to(root))
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    return pack


def packed_reports(root: Path) -> None:
    """MIMIC-CXR's reports are an archive of their own."""
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as packed:
        for path in sorted(root.rglob("*.txt")):
            packed.write(path, path.relative_to(root))
            path.unlink()


def decimal_ids(root: Path) -> None:
    path = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(re.sub(r",(\d{8}),(\d{8}),", r",\1.0,\2.0,", text).encode()))


def decimal_people(root: Path) -> None:
    path = root / "ukb41234.csv"
    path.write_text(re.sub(r"(?m)^(\d+),", r"\1.0,", path.read_text()))


def repeated(table: str, change: Callable[[str], str] = str) -> Callable[[Path], None]:
    """Its first line again at its end."""

    def repeat(root: Path) -> None:
        lines = (root / table).read_text().splitlines(keepends=True)
        (root / table).write_text("".join([*lines, change(lines[1])]))

    return repeat


MASKS = "PALM-Training400-Annotation-Lession"


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("palm", endings(".jpg"), ["5 files are named in another case of letters than the layout says", "H0001.JPG"]),
        ("palm", endings(".bmp"), ["2 files for 'mask_atrophy' are named in another case", "P0002.BMP"]),
        ("uk_biobank_fundus", endings(".png"), ["12 files are named in another case of letters", "1000010_21015_0_0.PNG"]),
        ("chexpert", endings(".jpg"), ["39 of 77 rows have no file for 'image'"]),
        ("nih_chestxray14", endings(".png"), ["12 of 24 rows", "12 files for 'image' are named in another case of letters"]),
        ("palm", zipped(MASKS), ["none of 10 rows has a file for 'mask_atrophy', of which some are packed", f"{MASKS}.zip"]),
        ("mimic_cxr_jpg", packed_reports, ["none of 36 rows has a file for 'report'", "that lie there (mimic-cxr-reports.zip)"]),
        ("rsna_pneumonia", zipped("stage_2_detailed_class_info.csv"), ["no table stage_2_detailed_class_info.csv", "class_info.csv.zip"]),
        ("tcga_gbm_lgg", zipped("roi_tiles"), ["no tiles or roi_tiles", "unpack the 1 archives that lie there (roi_tiles.zip)"]),
        ("mimic_cxr_jpg", decimal_ids, ["joined nobody", "ids such as '10000000.0' are decimal numbers"]),
        ("uk_biobank_fundus", decimal_people, ["joined nobody: it has 1000010.0", "are decimal numbers"]),
        ("nih_chestxray14", repeated("Data_Entry_2017.csv"), ["sample '00000001_000' stands twice"]),
        ("nih_chestxray14", repeated("Data_Entry_2017.csv", lambda t: t.replace("040Y", "1Y")), ["'00000001_000' stands twice"]),
        ("nih_chestxray14", repeated("BBox_List_2017.csv"), ["a row with a box stands twice"]),
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


def test_archives_that_hold_nothing_of_it_and_rows_that_repeat_without_a_box(tmp_path: Path) -> None:
    """What is kept beside the unpacked set; a table that says the same twice."""
    root = made("palm", tmp_path)
    shutil.rmtree(root / MASKS)
    (root / "notes.txt").write_text("mine")
    zipped("notes.txt")(root)
    assert main(["source", "palm", "--root", str(root), "--out", str(tmp_path / "set"), "--split-fractions", "1"]) == 0
    root = made("rsna_pneumonia", tmp_path / "other")
    repeated("stage_2_train_labels.csv")(root)
    assert main(["source", "rsna_pneumonia", "--root", str(root), "--out", str(tmp_path / "two")]) == 0


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

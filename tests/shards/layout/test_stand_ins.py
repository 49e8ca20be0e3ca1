"""What lies in place of a table or a film, or under nearly its name: told by what it is, at the command line, with nothing written."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.__main__ import main
from shards.tables.instead import LOOKED_AT, instead_of
from tests.shards.layout.test_layouts import made

PAGE = '<!DOCTYPE html>\n<html lang="en"><head><title>Log in</title></head><body>no, thanks</body></html>\n'
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
Damage = Callable[[Path], None]


def text(name: str, said: str) -> Damage:
    """Every file of this name, as something else."""

    def write(root: Path) -> None:
        for path in sorted(root.glob(name))[:2]:
            path.write_text(said)

    return write


def cut(name: str, share: float) -> Damage:
    def bite(root: Path) -> None:
        for path in sorted(root.glob(name))[:2]:
            path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return bite


def zeros(name: str) -> Damage:
    def fill(root: Path) -> None:
        for path in sorted(root.glob(name))[:2]:
            path.write_bytes(bytes(2000))

    return fill


def named(name: str, other: str) -> Damage:
    return lambda root: (root / name).rename(root / other) and None


def packed(name: str) -> Damage:
    def pack(root: Path) -> None:
        (root / f"{name}.gz").write_bytes(gzip.compress((root / name).read_bytes()))
        (root / name).unlink()

    return pack


def changed(name: str, pattern: str, new: str) -> Damage:
    def change(root: Path) -> None:
        path = root / name
        path.write_text(re.sub(pattern, new, path.read_text()))

    return change


def capitals(name: str) -> Damage:
    def rename(root: Path) -> None:
        for path in sorted(root.glob(name))[:2]:
            path.rename(path.with_name(path.name.upper()))

    return rename


KAGGLE = "lgg-mri-segmentation/kaggle_3m/data.csv"
FPKM, ENDS = "TCGA-LGG.htseq_fpkm.tsv.gz", "TCGA-LGG.survival.tsv"
ALIKE = "of 12 of them there is a file whose name differs in case or in zeros that lead"
GBM = "Pre-operative_TCGA_LGG_NIfTI_and_Segmentations/*/*"
STAR = "gdc/00000000-aaaa/00000000-bbbb.rna_seq.augmented_star_gene_counts.tsv"
WEB = "is a web page (HTML)"


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("aptos2019", text("train.csv", PAGE), [f"train.csv: {WEB}", "sign in"]),
        ("aptos2019", text("train.csv", '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'), ["train.csv: is XML"]),
        ("aptos2019", text("train.csv", '{"message":"Forbidden"}'), ["train.csv: is JSON"]),
        ("aptos2019", text("train.csv", POINTER), ["is a pointer of Git LFS", "git lfs pull"]),
        ("mimic_cxr_jpg", text("*-split.csv.gz", PAGE), [f"split.csv.gz: {WEB}"]),
        ("mimic_cxr_jpg", text("files/*/*/*.txt", PAGE), [f"50000000.txt' {WEB}", "sign in"]),
        ("mimic_cxr_jpg", text("files/*/*/*.txt", "FINDINGS: none\0\0\0"), ["has bytes of zero", "download it again"]),
        ("mimic_cxr_jpg", text("files/*/*/*.txt", POINTER), ["is a pointer of Git LFS"]),
        ("mimic_cxr_jpg", cut("*-split.csv.gz", 0.6), ["is cut or damaged, as its packing says", "download it again"]),
        ("aptos2019", text("train_images/*", PAGE), [f"cannot be read as png: it {WEB}", "bring the file that it names again"]),
        ("aptos2019", text("train_images/*", POINTER), ["it is a pointer of Git LFS"]),
        ("aptos2019", zeros("train_images/*"), ["it begins with zeros alone"]),
        ("chexpert", text("*/train/*/*/*.jpg", ""), ["cannot be read as jpg: it is empty (0 bytes)"]),
        ("chexpert", cut("*/train/*/*/*.jpg", 0.1), ["cannot be read as jpg"]),
        ("palm", text("*/Disc_Masks/*.bmp", PAGE), [f"2 files of 'mask_disc' cannot be taken: no picture: it {WEB}"]),
        ("palm", cut("*/Disc_Masks/*.bmp", 0.001), ["2 files of 'mask_disc' cannot be taken: cannot be read as a picture (of no kind"]),
        ("brats_tcga_lgg", text(f"{GBM}_flair.nii.gz", PAGE), [WEB]),
        ("brats_tcga_lgg", zeros(f"{GBM}_t1.nii.gz"), ["begins with zeros alone"]),
        ("tcga_luad_lusc", text("*/features_*/*.h5", PAGE), [WEB]),
        ("aptos2019", named("train.csv", "train.csv.part"), ["finish the download of 'train.csv.part'"]),
        ("aptos2019", named("train.csv", "train (1).csv"), ["rename 'train (1).csv' to 'train.csv'"]),
        ("aptos2019", named("train.csv", "Train.CSV"), ["rename 'Train.CSV' to 'train.csv'"]),
        ("aptos2019", packed("train.csv"), ["Fix: gunzip /", "/train.csv.gz"]),
        ("kaggle_lgg_mri", named(FPKM, f"{FPKM}.part"), [f"finish the download of '{FPKM}.part'"]),
        ("kaggle_lgg_mri", named(ENDS, f"{ENDS}.crdownload"), ["finish the download of"]),
        ("kaggle_lgg_mri", packed(KAGGLE), ["Fix: gunzip /", f"/{KAGGLE}.gz"]),
        ("kaggle_lgg_mri", changed(KAGGLE, "Patient.*\n", ""), ["its first line names a case", "TCGA_CS_4940"]),
        ("aptos2019", changed("train.csv", "(?m)^0+", ""), [ALIKE]),
        ("aptos2019", changed("train.csv", "ab12cd34", "AB12CD34"), ["for 'train_images/0000AB12CD34.png'"]),
        ("brats_tcga_lgg", capitals(f"{GBM}_t1.nii.gz"), ["of 2 of them there is a file whose name differs in case"]),
        ("tcga_luad_lusc", named(STAR, f"{STAR}.partial"), ["1 files were begun to be downloaded and are not whole"]),
        ("tcga_cbioportal", text("data_cna.txt", PAGE), [f"data_cna.txt: {WEB}"]),
        ("tcga_cbioportal", text("data_mrna_seq_v2_rsem.txt", ""), ["data_mrna_seq_v2_rsem.txt: the table is empty"]),
        ("tcga_cbioportal", packed("data_cna.txt"), ["no table data_cna.txt", "Fix: gunzip /"]),
        ("tcga_cbioportal", changed("data_cna.txt", "-01(?=[\\t\\n])", ""), ["data_cna.txt: has none of the samples", "'cnv'"]),
        ("nih_chestxray14", text("test_list.txt", PAGE), [f"test_list.txt: {WEB}"]),
        ("nih_chestxray14", text("test_list.txt", "\n"), ["the list of a split names nothing"]),
        ("nih_chestxray14", text("test_list.txt", "a\0b"), ["is no list"]),
        ("nih_chestxray14", cut("test_list.txt", 0.95), ["its last line, '00000012_0', is the beginning of a name"]),
        ("iu_xray", changed("indiana_projections.csv", r"(?s)(.*IM-0005-1001.dcm.png,F).*", r"\1"), ["its last line has no end"]),
        ("iu_xray", changed("indiana_projections.csv", "(?m)^1,", "1-Mar,"), ["has no patient: '1-Mar' is none"]),
    ],
)  # fmt: skip
def test_is_told_by_what_it_is(
    name: str, damage: Damage, says: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(name, tmp_path)
    damage(root)
    assert main(["source", name, "--root", str(root), "--out", str(tmp_path / "set")]) == 2
    said = capsys.readouterr().err
    for words in says:
        assert words in said, said
    assert " object at 0x" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root"]


def test_names_alike_in_other_folders_are_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photographs are 1.png in each of three parts."""
    root = made("rfmid", tmp_path)
    (root / "Training_Set/Training_Set/Training/1.png").unlink()
    (root / "Test_Set/Test_Set/RFMiD_Testing_Labels.csv").write_text(
        (root / "Test_Set/Test_Set/RFMiD_Testing_Labels.csv").read_text().replace("\n1,", "\n99,")
    )
    assert main(["source", "rfmid", "--root", str(root), "--out", str(tmp_path / "set")]) == 2
    said = capsys.readouterr().err
    assert "2 of 16 rows have no file" in said
    assert "differs in case" not in said


def test_a_last_line_without_an_end_is_said_where_nothing_else_speaks_of_a_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made("aptos2019", tmp_path)
    (root / "train.csv").write_text((root / "train.csv").read_text().rstrip("\n"))
    words = ["source", "aptos2019", "--root", str(root), "--out", str(tmp_path / "set")]
    assert main([*words, "--split-fractions", "0.6,0.2,0.2"]) == 0
    assert "the last line of train.csv has no end" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("head", "is_another"),
    [
        (b"", True), (b"\xef\xbb\xbf \n<HTML>", True), (bytes(LOOKED_AT), True), (bytes(20), False), (b"\x89PNG\r\n", False),
        (b"id_code,diagnosis\n", False), (bytes(128) + b"DICM" + bytes(400), False), (b"\x1f\x8b\x08", False), (b"{a},b\n", False),
    ],
)  # fmt: skip
def test_heads(head: bytes, is_another: bool) -> None:
    assert (instead_of(head) is not None) == is_another


def test_a_wide_table_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made("tcga_cbioportal", tmp_path)
    (root / "data_cna.txt").unlink()
    words = ["source", "tcga_cbioportal", "--root", str(root), "--out", str(tmp_path / "set")]
    assert main([*words, "--split-fractions", "0.6,0.2,0.2"]) == 0
    said = capsys.readouterr().out
    assert "data_cna.txt is not there: no sample has 'cnv'" in said
    assert "13 of 13 samples have no 'cnv'" in said


def test_a_damaged_bag_whose_names_cannot_be_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The names of its members are zeros: it opens, and nothing in it can be named."""
    root = made("tcga_cbioportal", tmp_path)
    for path in sorted((root / "features").iterdir())[:2]:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert main(["source", "tcga_cbioportal", "--root", str(root), "--out", str(tmp_path / "set")]) == 2
    assert "cannot be read (" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root"]

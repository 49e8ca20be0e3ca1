"""TCGA cases however they are written, and what is refused where slides, tiles, expression and labels do not meet."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.read.dataset import Dataset
from shards.sources._barcode import no_diagnostic_slide, no_tumour, sample_type, section

CASES = [f"TCGA-{10 + i % 3}-{1000 + i}" for i in range(9)]
WAYS: dict[str, Callable[[str], str]] = {
    "dashes": lambda c: c,
    "dots": lambda c: c.replace("-", "."),
    "underscores": lambda c: c.replace("-", "_"),
    "small": lambda c: c.lower(),
    "a sample": lambda c: f"{c}-01A-11R-A123-07",
    "a sample of R": lambda c: f"{c}-01A-11R-A123-07".replace("-", "."),
}


def write(path: Path, rows: list[list[object]]) -> Path:
    with open(path, "w", newline="") as f:
        csv.writer(f).writerows(rows)
    return path


def bags(path: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(1)
    np.savez(
        path,
        features=rng.normal(size=(3 * len(names), 4)).astype("f4"),
        offsets=np.arange(len(names) + 1) * 3,
        slide=names,
    )
    return path


def nsclc(
    folder: Path, slide=lambda c: f"{c}-01Z-00-DX1.AA", sample=lambda c: f"{c}-01A", label=lambda c: c
) -> list[str]:
    rng = np.random.default_rng(2)
    features = bags(folder / "bags.npz", [slide(c) for c in CASES])
    rna = write(folder / "rna.csv", [["id", "G1", "G2"], *([sample(c), *rng.gamma(2, 5, 2).round(3)] for c in CASES)])
    labels = write(
        folder / "labels.csv", [["case", "subtype"], *([label(c), "AB"[i % 2]] for i, c in enumerate(CASES))]
    )
    given = {"features": features, "expression": rna, "labels": labels, "out": folder / "out"}
    return ["source", "tcga_nsclc", *(w for k, v in given.items() for w in (f"--{k}", str(v)))]


@pytest.mark.parametrize("way", WAYS)
def test_labels_join_however_cases_are_written(tmp_path, way):
    assert main(nsclc(tmp_path, label=WAYS[way])) == 0
    with Dataset.open(tmp_path / "out") as data:
        assert {r.patient: r.labels["subtype"] for r in data} == {c: "AB"[i % 2] for i, c in enumerate(CASES)}


def test_slides_with_dots_and_small_letters(tmp_path):
    assert main(nsclc(tmp_path, slide=lambda c: f"{c}-01Z-00-DX1".replace("-", ".").lower())) == 0
    with Dataset.open(tmp_path / "out") as data:
        assert sorted(data.patients) == sorted(CASES)


def test_a_case_on_two_lines_in_two_spellings(tmp_path, capsys):
    words = nsclc(tmp_path)
    with open(tmp_path / "labels.csv", "a") as f:
        f.write(f"{CASES[2].replace('-', '.')}.01A,A\n")
    assert main(words) == 2
    assert (
        f"1 x a case on two lines: '{CASES[2]}' on labels.csv line 4 and labels.csv line 11" in capsys.readouterr().err
    )


@pytest.mark.parametrize(("side", "flag"), [("sample", "--expression rna.csv"), ("label", "--labels labels.csv")])
def test_a_side_that_joins_nobody(tmp_path, capsys, side, flag):
    other = {side: lambda c: c.replace("TCGA-1", "TCGA-7")}
    assert main(nsclc(tmp_path, **other)) == 2
    said = capsys.readouterr().err
    assert f"{flag}: joined nobody: none of 9 of --features" in said
    assert "(--features has 'TCGA-10-1000', " in said
    assert "has 'TCGA-70-1000')" in said


def test_labels_without_a_barcode(tmp_path, capsys):
    assert main(nsclc(tmp_path, label=lambda c: f"patient {c[-1]}{c}")) == 2
    assert "no TCGA barcode in its first column, 'case' (it has 'patient 0TCGA-10-1000')" in capsys.readouterr().err


def test_under_half(tmp_path, capsys):
    assert main(nsclc(tmp_path, label=lambda c: c if int(c[-1]) < 3 else c.replace("TCGA-1", "TCGA-8"))) == 0
    said = capsys.readouterr().out
    assert "--labels labels.csv: 3 of 9 of --features joined 3 of 9 of labels.csv. UNDER HALF" in said
    assert "'TCGA-10-1003' of --features, 'TCGA-80-1003' of labels.csv" in said


def test_what_a_barcode_says():
    names = ("TCGA-05-4244-01Z-00-DX1", "TCGA.05.4244.11A.01", "tcga_05_4244_06A", "TCGA-05-4244")
    assert [sample_type(n) for n in names] == [1, 11, 6, None]
    assert sample_type("TCGA_02_0001_12") is None, "tile 12 of a case"
    assert sample_type("TCGA_CS_4941_19960909") is None
    assert sample_type("TCGA-05-4244-01") == 1
    assert section("TCGA.05.4244.01Z.00.DX2.aaa") == ("DX", 2)
    assert section("tcga-05-4244-01a-01-ts1") == ("TS", 1)
    assert no_tumour("TCGA.05.4244.11A.01.TS1") == "normal tissue, not tumour"
    assert no_tumour("notes") == "not a TCGA barcode"
    assert no_diagnostic_slide("TCGA_02_0001_12.png") is None
    assert (no_diagnostic_slide("TCGA-05-4244-01A-01-BS1") or "").startswith("frozen section (BS)")


def glioma(
    folder: Path, tiles: list[str], *more: str, header=("case", "A_rnaseq", "B_cnv", "grade"), cases=CASES
) -> list[str]:
    rng = np.random.default_rng(0)
    (folder / "tiles").mkdir(exist_ok=True)
    for case in tiles:
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / "tiles" / f"{case}_0.png")
    write(folder / "omics.csv", [[*header], *([c, i / 2, i % 3 - 1, f"G{i % 2}"] for i, c in enumerate(cases))])
    given = ["--tiles", str(folder / "tiles"), "--omics", str(folder / "omics.csv"), "--out", str(folder / "out")]
    return ["source", "glioma", *given, *more]


def test_glioma(tmp_path, capsys):
    small = [c.lower().replace("-", ".") for c in CASES]
    assert main(glioma(tmp_path, CASES, cases=small)) == 0
    assert "--tiles: 9 of 9 of --omics joined 9 of 9 of --tiles" in capsys.readouterr().out
    labels = write(tmp_path / "labels.csv", [["case", "label"], ["TCGA-77-1000", "x"]])
    assert main(glioma(tmp_path, CASES, "--labels", str(labels), "--overwrite")) == 2
    assert "--labels labels.csv: joined nobody" in capsys.readouterr().err
    write(tmp_path / "labels.csv", [["case", "grade"], [CASES[0], "G1"]])
    assert main(glioma(tmp_path, CASES, "--labels", str(labels), "--overwrite")) == 2
    assert "grade of TCGA-10-1000 is 'G1' here, 'G0' in a table before" in capsys.readouterr().err
    more = write(tmp_path / "more.csv", [["case", "C_cnv"], ["TCGA-77-1000", 1]])
    assert main([*glioma(tmp_path, CASES, "--overwrite"), "--omics", str(tmp_path / "omics.csv"), str(more)]) == 2
    assert "--omics more.csv: joined nobody" in capsys.readouterr().err
    write(more, [["case", "C_cnv"], [CASES[0], 1]])
    write(tmp_path / "other.csv", [["case", "D_cnv"], [CASES[1], 1]])
    tables = [str(tmp_path / n) for n in ("omics.csv", "more.csv", "other.csv")]
    assert main([*glioma(tmp_path, CASES, "--overwrite"), "--omics", *tables]) == 2
    assert "none of 9 cases has all 3 features of 'cnv'" in capsys.readouterr().err


def lgg(folder: Path, expression: Callable[[str], str], label: Callable[[str], str]) -> list[str]:
    root, rng = folder / "kaggle_3m", np.random.default_rng(0)
    for case in CASES:
        stem = f"{case.replace('-', '_')}_19960909"
        (root / stem).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(root / stem / f"{stem}_1.tif")
        mask = np.zeros((8, 8), np.uint8)
        mask[:3] = 255
        Image.fromarray(mask).save(root / stem / f"{stem}_1_mask.tif")
    write(root / "data.csv", [["Patient", "cluster"], *([label(c), i % 2] for i, c in enumerate(CASES))])
    write(folder / "rna.csv", [["id", "G1"], *([expression(c), i / 3] for i, c in enumerate(CASES))])
    return [
        "source",
        "lgg_mri",
        "--images",
        str(root),
        "--expression",
        str(folder / "rna.csv"),
        "--out",
        str(folder / "out"),
    ]


def test_lgg(tmp_path, capsys):
    words = lgg(tmp_path, lambda c: f"{c}-01A", lambda c: c.replace("-", ".").lower())
    assert main(words) == 0
    with Dataset.open(tmp_path / "out") as data:
        assert {r.patient: r.labels["cluster"] for r in data} == {c: str(i % 2) for i, c in enumerate(CASES)}
    folder = tmp_path / "kaggle_3m" / "again"
    folder.mkdir()
    first = next((tmp_path / "kaggle_3m").glob("*/*_1.tif"))
    (folder / first.name).write_bytes(first.read_bytes())
    assert main([*words, "--overwrite"]) == 2
    assert f"'{first.stem}' is here and in " in capsys.readouterr().err
    (folder / first.name).unlink()
    folder.rmdir()
    assert main([*lgg(tmp_path, lambda c: c, lambda c: f"TCGA-99-{c[-4:]}"), "--overwrite"]) == 2
    assert "--labels: joined nobody" in capsys.readouterr().err
    strange = lgg(tmp_path, lambda c: f"TCGA-99-{c[-4:]}", lambda c: c)
    assert main([*strange, "--overwrite", "--unpaired", "keep"]) == 2
    assert "--expression: joined nobody" in capsys.readouterr().err

"""Whose genotypes and scores a photograph gets: ids as tables write them, and what happens where nobody is found."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.format.info import load_info
from shards.read.dataset import Dataset
from tests.shards.test_genotypes import plink

PEOPLE = [str(1000 + i) for i in range(12)]
SCORES = np.arange(24, dtype=float).reshape(12, 2) / 7


def pictures(folder: Path, names: list[str] = PEOPLE, head: str = "image,patient,eye") -> Path:
    """A table of one small photograph each."""
    rng = np.random.default_rng(3)
    (folder / "img").mkdir(parents=True, exist_ok=True)
    lines = [head]
    for i, name in enumerate(names):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "img" / f"e{i}.png")
        lines.append(f"img/e{i}.png,{name},{'LR'[i % 2]}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


def chip(folder: Path, names: list[str] = PEOPLE, **more) -> Path:
    codes = np.random.default_rng(5).integers(0, 3, (len(names), 6))
    return plink(folder, codes, iid=names, fid=more.pop("fid", ["0"] * len(names)), **more)


def scores(path: Path, header: list[str], rows: list[list[object]], sep: str = ",") -> Path:
    text = "\n".join(sep.join(map(str, r)) for r in [header, *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def pack(folder: Path, *words: object, images: Path | None = None) -> int:
    given = ["--images", images or folder / "images.csv", "--out", folder / "out", "--overwrite", "--quality", "none"]
    return main(["source", "fundus_genotypes", *map(str, given), *map(str, words)])


def of_patients(folder: Path, field: str) -> dict[str, np.ndarray]:
    with Dataset.open(folder / "out") as data:
        return {r.patient: r.read(field) for r in data if r.has(field)}


def test_ids_join_however_they_are_written(tmp_path, capsys):
    """Blanks, leading zeros and p: the right person's scores."""
    pictures(tmp_path)
    rows = [[f"{('p', '00', ' ')[i % 3]}{p}", *SCORES[i]] for i, p in enumerate(PEOPLE)]
    table = scores(tmp_path / "pgs.csv", ["eid", "PGS1", "PGS2"], rows)
    assert pack(tmp_path, "--pgs", table, "--genotypes", chip(tmp_path), "--every", "1") == 0
    said = capsys.readouterr().out
    assert "--pgs pgs.csv: 12 of 12 of --images joined 12 of 12 of pgs.csv" in said
    assert "--genotypes g.bed: 12 of 12 of --images joined 12 of 12 of g.bed" in said
    found = of_patients(tmp_path, "pgs")
    assert list(found) == PEOPLE
    for i, p in enumerate(PEOPLE):
        np.testing.assert_allclose(found[p], SCORES[i], rtol=1e-2)


@pytest.mark.parametrize("name", ["pgs", "burden"])
def test_what_joins_nobody_is_refused_with_an_id_of_each_side(tmp_path, capsys, name):
    pictures(tmp_path)
    table = scores(tmp_path / "s.csv", ["IID", "S1"], [[f"NA{p}", 0.5] for p in PEOPLE])
    assert pack(tmp_path, f"--{name}", table, "--genotypes", chip(tmp_path), "--every", "1") == 2
    said = capsys.readouterr().err
    assert f"--{name} s.csv: joined nobody: none of 12 of --images is among the 12 of s.csv" in said
    assert "(--images has '1000', s.csv has 'NA1000')" in said
    assert not (tmp_path / "out").exists()


def test_under_half_of_a_side_is_said_with_an_id_of_each(tmp_path, capsys):
    pictures(tmp_path)
    table = scores(tmp_path / "s.csv", ["IID", "S1"], [[p, i / 3] for i, p in enumerate([*PEOPLE[:3], "X1", "X2"])])
    assert pack(tmp_path, "--pgs", table) == 0
    said = capsys.readouterr().out
    assert "UNDER HALF: without a partner are '1003' of --images, 'X1' of s.csv" in said
    assert len(of_patients(tmp_path, "pgs")) == 3


def test_decimal_and_doubled_ids_are_refused_until_they_are_said_to_be_meant(tmp_path, capsys):
    pictures(tmp_path)
    table = scores(tmp_path / "s.csv", ["IID", "S1"], [[f"{p}.0", i / 3] for i, p in enumerate(PEOPLE)])
    assert pack(tmp_path, "--pgs", table) == 2
    assert "--pgs s.csv: 12 ids are decimal numbers" in capsys.readouterr().err
    doubled = chip(tmp_path, [f"{p}_{p}" for p in PEOPLE])
    assert pack(tmp_path, "--genotypes", doubled, "--every", "1") == 2
    said = capsys.readouterr().err
    assert "g.bed has '1000_1000'" in said
    assert "--repair-ids" in said
    assert pack(tmp_path, "--pgs", table, "--genotypes", doubled, "--every", "1", "--repair-ids") == 0
    assert list(of_patients(tmp_path, "pgs")) == list(of_patients(tmp_path, "snp")) == PEOPLE


def test_the_column_of_people_is_not_taken_from_its_place(tmp_path, capsys):
    """Scores as pgsc_calc writes them: sampleset first, then IID, and how many alleles were counted."""
    pictures(tmp_path)
    rows = [["ukb", p, 7300, *SCORES[i]] for i, p in enumerate(PEOPLE)]
    table = scores(tmp_path / "agg.txt.gz", ["sampleset", "IID", "DENOM", "PGS1_SUM", "PGS2_SUM"], rows, "\t")
    assert pack(tmp_path, "--pgs", table) == 2
    said = capsys.readouterr().err
    assert "its first column, 'sampleset' ('ukb' in the first line), seems not to name people, as 'IID' does" in said
    assert "--pgs-people IID" in said
    assert pack(tmp_path, "--pgs", table, "--pgs-people", "IID") == 0
    said = capsys.readouterr().out
    assert "1 x an id, no feature: sampleset" in said
    assert "1 x bookkeeping of scores, no feature: DENOM" in said
    info = load_info(tmp_path / "out")
    assert info.fields["pgs"].shape == (2,)
    assert (tmp_path / "out" / "vocab" / "pgs.txt").read_text().split() == ["PGS1_SUM", "PGS2_SUM"]
    np.testing.assert_allclose(of_patients(tmp_path, "pgs")["1003"], SCORES[3], rtol=1e-2)
    assert pack(tmp_path, "--pgs", table, "--pgs-people", "eid") == 2
    assert "no column 'eid' (--pgs-people)" in capsys.readouterr().err


def test_family_and_person_together(tmp_path, capsys):
    """Two families whose people are called 1 to 6: FID and IID on every side."""
    families, people = ["A"] * 6 + ["B"] * 6, [str(1 + i % 6) for i in range(12)]
    names = [f"{f}_{p}" for f, p in zip(families, people, strict=True)]
    pictures(tmp_path, [f"{f},{p}" for f, p in zip(families, people, strict=True)], "image,FID,IID,eye")
    table = scores(
        tmp_path / "s.sscore",
        ["#FID", "IID", "ALLELE_CT", "SCORE1_AVG"],
        [[f, p, 20, i / 3] for i, (f, p) in enumerate(zip(families, people, strict=True))],
        "\t",
    )
    bed = chip(tmp_path, people, fid=families)
    words = ("--patient-column", "FID,IID", "--pgs", table, "--genotypes", bed, "--every", "1")
    assert pack(tmp_path, *words) == 0
    assert "people are called FID_IID" in capsys.readouterr().out
    assert list(of_patients(tmp_path, "snp")) == list(of_patients(tmp_path, "pgs")) == names
    assert (tmp_path / "out" / "vocab" / "pgs.txt").read_text().split() == ["SCORE1_AVG"]
    pairs = tmp_path / "pairs.csv"
    rows = [["who", "FID", "IID"], *([f"w{i}", f, p] for i, (f, p) in enumerate(zip(families, people, strict=True)))]
    with open(pairs, "w", newline="") as f:
        csv.writer(f).writerows(rows)
    pictures(tmp_path / "paired", [f"w{i}" for i in range(12)])
    words = ("--pairing", pairs, "--pairing-column", "FID,IID", "--genotypes", bed, "--every", "1")
    assert pack(tmp_path / "paired", *words) == 0
    assert len(of_patients(tmp_path / "paired", "snp")) == 12


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["1000", 1], ["1001", 2], ["1000", 3]], "1 x a person on two lines: '1000' on s.csv line 2 and s.csv line 4"),
        (
            [["1000", 1], ["p1000", 2]],
            "1 people stand twice, in two spellings: '1000' (s.csv line 2) and 'p1000' (s.csv line 3)",
        ),
    ],
)
def test_no_last_line_wins(tmp_path, capsys, rows, said):
    pictures(tmp_path)
    assert pack(tmp_path, "--pgs", scores(tmp_path / "s.csv", ["IID", "S1"], rows)) == 2
    assert said in capsys.readouterr().err


def test_a_pairing_names_each_patient_once(tmp_path, capsys):
    pictures(tmp_path)
    bed, pairs = chip(tmp_path), tmp_path / "pairs.csv"
    pairs.write_text("who,person\n" + "".join(f"{p},{q}\n" for p, q in zip(PEOPLE, PEOPLE[::-1], strict=True)))
    words = ("--genotypes", bed, "--every", "1", "--pairing", pairs)
    assert pack(tmp_path, *words) == 0
    assert "--pairing pairs.csv: 12 of 12 of --images joined 12 of 12 of pairs.csv" in capsys.readouterr().out
    pairs.write_text(pairs.read_text() + "1000,1001\n")
    assert pack(tmp_path, *words) == 2
    assert "1 x a patient on two lines: '1000'" in capsys.readouterr().err
    pairs.write_text("who,person\n1000,1000\np1000,1001\n")
    assert pack(tmp_path, *words) == 2
    assert "'1000' (pairs.csv line 2) and 'p1000' (pairs.csv line 3)" in capsys.readouterr().err
    pairs.write_text("who,person\nNA18,1000\n")
    assert pack(tmp_path, *words) == 2
    assert "--pairing pairs.csv: joined nobody" in capsys.readouterr().err
    pairs.write_text("who,person\n1000,NA\n")
    assert pack(tmp_path, *words) == 2
    assert "column person names nobody" in capsys.readouterr().err


def test_the_same_dna_counted_the_other_way_is_another_vocabulary(tmp_path):
    """The data sets of two files that count the other allele differ by name, or agree in every code when both are sorted."""
    codes = np.random.default_rng(5).integers(0, 3, (12, 6))
    for name, code, alleles in (("a", codes, "AG"), ("b", 2 - codes, "GA")):
        pictures(tmp_path / name)
        plink(tmp_path / name, code, iid=PEOPLE, fid=["0"] * 12, allele_1=[alleles[0]] * 6, allele_2=[alleles[1]] * 6)
        assert pack(tmp_path / name, "--genotypes", tmp_path / name / "g.bed", "--every", "1") == 0
    fields = [load_info(tmp_path / n / "out").fields["snp"] for n in "ab"]
    assert fields[0].vocab_sha256 != fields[1].vocab_sha256
    assert fields[0].meaning["allele"] == fields[1].meaning["allele"] == "the one in the SNP's name"
    for n in "ab":
        words = ("--genotypes", tmp_path / n / "g.bed", "--every", "1", "--count-allele", "sorted")
        assert pack(tmp_path / n, *words, "--meaning", "snp.build=hg19") == 0
    fields = [load_info(tmp_path / n / "out").fields["snp"] for n in "ab"]
    assert fields[0] == fields[1]
    assert fields[0].meaning["build"] == "GRCh37"
    one, two = (of_patients(tmp_path / n, "snp") for n in "ab")
    assert all((one[p] == two[p]).all() for p in PEOPLE)


def test_options_that_name_nothing_are_refused(tmp_path, capsys):
    pictures(tmp_path)
    assert pack(tmp_path, "--eye-column", "side") == 2
    assert "no column side" in capsys.readouterr().err
    pictures(tmp_path, ["nan", *PEOPLE[1:]])
    assert pack(tmp_path) == 2
    assert "sample 'e0' has no patient" in capsys.readouterr().err

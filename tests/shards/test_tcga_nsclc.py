"""The TCGA source: joining by barcode, both orientations of the expression table, CLAM folders; and the real samples."""

from __future__ import annotations

import argparse
import csv
import gzip
import re
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from shards.__main__ import main
from shards.check.lint import lint
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.sources import Found, get_source, source_names

CASES = [f"TCGA-{10 + i // 3}-{1000 + i}" for i in range(12)]
WIDTH, GENES = 6, 5


@pytest.fixture
def layout(tmp_path: Path) -> dict[str, Path]:
    """CLAM output (h5 and pt side by side), FPKM with genes as rows and versions, labels; some of each without the others."""
    rng = np.random.default_rng(0)
    base = tmp_path / "tcga"
    (base / "h5_files").mkdir(parents=True)
    (base / "pt_files").mkdir()
    slides = [f"{c}-01Z-00-DX1.AAAA-{i}" for i, c in enumerate(CASES)] + [
        f"{CASES[0]}-01Z-00-DX2.BBBB",
        "TCGA-99-9999-01Z-00-DX1.CCCC",
        "notes",
    ]
    for name in slides:
        bag = rng.normal(size=(int(rng.integers(3, 7)), WIDTH)).astype(np.float32)
        with h5py.File(base / "h5_files" / f"{name}.h5", "w") as f:
            f["features"], f["coords"] = bag, rng.integers(0, 90_000, (len(bag), 2))
        torch.save(torch.from_numpy(bag), base / "pt_files" / f"{name}.pt")
    samples = [f"{c}-01A-11R-0001-07" for c in CASES[:-1]] + [
        f"{CASES[1]}-11A-11R-0001-07",
        f"{CASES[2]}-01B-11R-0001-07",
    ]
    genes = [f"ENSG{g:011d}.{g + 1}" for g in range(GENES)]
    with gzip.open(base / "fpkm.tsv.gz", "wt", newline="") as f:
        csv.writer(f, delimiter="\t").writerows(
            [["id", *samples], *([g, *(f"{v:.3f}" for v in rng.gamma(2, 5, len(samples)))] for g in genes)]
        )
    with open(base / "labels.csv", "w", newline="") as f:
        csv.writer(f).writerows(
            [
                ["case_id", "label", "age"],
                *([c, "LUAD" if i % 2 else "LUSC", "" if i == 3 else 50 + i] for i, c in enumerate(CASES)),
            ]
        )
    return {"features": base / "h5_files", "expression": base / "fpkm.tsv.gz", "labels": base / "labels.csv"}


def find(layout: dict[str, Path], **more: object) -> Found:
    parser = argparse.ArgumentParser()
    source = get_source("tcga_nsclc")
    source.options(parser)
    return source.find(parser.parse_args([f"--{k.replace('_', '-')}={v}" for k, v in (layout | more).items()]))


def test_joins_by_barcode_and_says_what_did_not(layout: dict[str, Path]) -> None:
    found = find(layout)
    assert [e.patient for e in found.manifest.entries] == CASES[:-1]
    assert not found.manifest.problems
    left = dict(found.unmatched)
    assert left["notes.h5"] == "not a TCGA barcode"
    assert left[f"{CASES[0]}-01Z-00-DX2.BBBB"].startswith("another slide of the patient was taken")
    assert left["TCGA-99-9999"] == "no expression and no labels"
    assert left[CASES[-1]] == "no expression"
    assert left[f"{CASES[1]}-11A-11R-0001-07"] == "normal tissue, not tumour"
    assert left[f"{CASES[2]}-01B-11R-0001-07"].startswith("another expression sample")
    assert len(left) == 6
    assert "expression: 5 names x 13 cases, cases are columns" in found.notes
    assert any("11 patients joined (11 slides); 6 slides or cases left out" in n for n in found.notes)


def test_two_aliquots_of_one_vial_are_asked_about(layout: dict[str, Path]) -> None:
    """A sample type or a vial decides; a plate does not."""
    twice = (f"{CASES[0]}-01A-11R-0001-07", f"{CASES[0]}-01A-11R-0002-07")
    with gzip.open(layout["expression"], "rt") as f:
        text = f.read()
    with gzip.open(layout["expression"], "wt") as f:
        f.write(text.replace(f"{CASES[1]}-11A-11R-0001-07", twice[1]))
    with pytest.raises(
        DataError, match=rf"which of '{CASES[0]}' is meant: '{twice[0]}', '{twice[1]}'. Fix: .*--replicates first"
    ):
        find(layout)
    assert dict(find(layout, replicates="first").unmatched)[twice[1]].startswith("another expression sample")


def test_all_slides_of_a_patient(layout: dict[str, Path]) -> None:
    entries = find(layout, slides="all").manifest.entries
    assert len(entries) == 12
    assert [e.patient for e in entries[:2]] == [CASES[0]] * 2
    assert entries[0].sample == f"{CASES[0]}-01Z-00-DX1_AAAA-0"
    assert entries[2].sample == CASES[1]


def test_packs_end_to_end(layout: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = [f"--{k}={v}" for k, v in layout.items()]
    assert (
        main(
            [
                "source",
                "tcga_nsclc",
                *arguments,
                f"--out={tmp_path / 'out'}",
                "--expression-transform=log2p1",
                "--licence=TCGA open access",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "cases are columns" in shown
    assert "unmatched.csv" in shown
    with Dataset.open(tmp_path / "out") as data:
        with gzip.open(layout["expression"], "rt") as f:
            fpkm = np.array([line[1:] for line in csv.reader(f, delimiter="\t")][1:], float)
        np.testing.assert_allclose(data[4].read("rna"), np.log2(fpkm[:, 4] + 1), rtol=2e-3)
        assert data.vocabulary("rna") == tuple(f"ENSG{g:011d}" for g in range(GENES))
        with h5py.File(layout["features"] / f"{CASES[4]}-01Z-00-DX1.AAAA-4.h5") as f:
            assert np.array_equal(data[4].read("patches"), f["features"][:].astype(np.float16))
            assert np.array_equal(data[4].read("coords"), f["coords"][:])
        assert data[4].labels["tss"] == CASES[4][5:7]
        assert data[3].labels["age"] is None
        assert data[0].read("meta")["provenance"]["rna"] == f"fpkm.tsv.gz#column:{CASES[0]}-01A-11R-0001-07"
    assert len((tmp_path / "out" / "unmatched.csv").read_text().splitlines()) == 7
    assert not lint(tmp_path / "out").problems


def test_pt_folder_equals_h5_folder_but_for_coordinates(layout: dict[str, Path]) -> None:
    from_pt = find(layout | {"features": layout["features"].parent / "pt_files"}).manifest.entries
    assert [set(e.fields) for e in from_pt] == [{"patches", "rna"}] * 11
    both = find(layout | {"features": layout["features"].parent}).manifest.entries
    assert [e.fields["patches"].path.suffix for e in both] == [".h5"] * 11


def test_log2p1_of_values_that_are_no_counts(
    layout: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text = gzip.decompress(layout["expression"].read_bytes()).decode()
    layout["expression"].write_bytes(gzip.compress(re.sub(r"\t(\d)", r"\t-\1", text, count=1).encode()))
    arguments = [f"--{k}={v}" for k, v in layout.items()]
    assert main(["source", "tcga_nsclc", *arguments, f"--out={tmp_path / 'out'}", "--expression-transform=log2p1"]) == 2
    assert "has negative values" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("broken", "content", "message"),
    [
        (
            "labels",
            "case_id,label\nTCGA-00-0000,LUAD\n",
            r"joined nobody: none of 13 of --features is among the 1 of broken.csv",
        ),
        (
            "labels",
            f"case_id,label\n{CASES[0]},LUAD\n{CASES[0]},LUSC\n",
            rf"'{CASES[0]}' on broken.csv line 2 and broken.csv line 3",
        ),
        ("expression", "id,a,b\nTP53,1,2\n", r"no TCGA barcode in the first column \('id'\) or in the header"),
    ],
)
def test_files_that_do_not_fit(
    layout: dict[str, Path], tmp_path: Path, broken: str, content: str, message: str
) -> None:
    layout[broken] = tmp_path / "broken.csv"
    layout[broken].write_text(content)
    with pytest.raises(DataError, match=message):
        find(layout)


def test_folder_without_bags_and_npz_without_members(layout: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"x.npz: has no offsets, slide"):
        find(layout | {"features": tmp_path / "x.npz"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no .h5 or .pt file named by a TCGA barcode"):
        find(layout | {"features": tmp_path / "empty"})


def test_unknown_source() -> None:
    assert "tcga_nsclc" in source_names()
    with pytest.raises(DataError, match=r"no source 'tcga_nslc'. Fix: did you mean 'tcga_nsclc'"):
        get_source("tcga_nslc")


@pytest.mark.real
def test_real_samples(real_data: Path, tmp_path: Path) -> None:
    base, out = real_data / "gimp_nsclc", tmp_path / "nsclc"
    files = [
        f"--features={base / 'hipt_regions.npz'}",
        f"--expression={base / 'rnaseq.csv.gz'}",
        f"--labels={base / 'labels.csv'}",
    ]
    assert main(["source", "tcga_nsclc", *files, f"--out={out}"]) == 0
    report = lint(out)
    assert not report.problems
    with Dataset.open(out) as data, np.load(base / "hipt_regions.npz") as packed:
        assert (len(data), data.info.patients) == (400, 400)
        assert data.info.fields["rna"].shape == (1554,)
        assert data.info.fields["patches"].shape == (None, 192)
        assert Counter(rec.labels["label"] for rec in data) == {"LUAD": 200, "LUSC": 200}
        place = {c: i for i, c in enumerate(packed["case_id"])}
        features, offsets = packed["features"], packed["offsets"]
        with gzip.open(base / "rnaseq.csv.gz", "rt") as f:
            rows = {r[0]: r[1:] for r in csv.reader(f)}
        assert data.vocabulary("rna") == tuple(rows["case_id"])
        for i in range(0, 400, 7):
            at = place[data[i].key]
            assert np.array_equal(data[i].read("patches"), features[offsets[at] : offsets[at + 1]])
            assert np.array_equal(data[i].read("rna"), np.array(rows[data[i].key], np.float32).astype(np.float16))

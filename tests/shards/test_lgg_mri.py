"""The LGG MRI source: the kaggle_3m layout with TIFF slices and masks, refusals, and the real slices."""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.sources import Found, get_source

CASES = [f"TCGA-{site}-{4940 + i}" for i, site in enumerate(["CS", "CS", "DU", "DU", "FG", "HT", "HT", "HT"])]
PIXELS, GENES = 24, 5


def slice_names(i: int) -> list[str]:
    return [f"{CASES[i].replace('-', '_')}_19960909_{k}" for k in (2, 10, 11)[: 2 + i % 2]]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return kaggle(tmp_path / "kaggle_3m")


def kaggle(root: Path) -> Path:
    """Eight patients with two or three slices, the first of each without tumour; the last patient has no expression."""
    rng = np.random.default_rng(0)
    for i in range(len(CASES)):
        folder = root / f"{CASES[i].replace('-', '_')}_19960909"
        folder.mkdir(parents=True, exist_ok=True)
        for k, name in enumerate(slice_names(i)):
            Image.fromarray(rng.integers(0, 255, (PIXELS, PIXELS, 3), dtype=np.uint8)).save(folder / f"{name}.tif")
            mask = np.zeros((PIXELS, PIXELS), np.uint8)
            mask[: 4 * k, :5] = 255
            Image.fromarray(mask).save(folder / f"{name}_mask.tif")
            (folder / f"._{name}.tif").write_bytes(b"\0\5\x16\7 of macOS")
    with open(root / "data.csv", "w", newline="") as f:
        rows = [[c.replace("-", "_"), 1 + i % 3, "" if i == 2 else 30 + i] for i, c in enumerate(CASES)]
        csv.writer(f).writerows([["Patient", "RNASeqCluster", "age_at_initial_pathologic"], *rows])
    with open(root / "fpkm.tsv", "w", newline="") as f:
        table = [[f"ENSG{g:011d}.3", *(f"{v:.3f}" for v in rng.gamma(2, 5, len(CASES) - 1))] for g in range(GENES)]
        csv.writer(f, delimiter="\t").writerows([["id", *(f"{c}-01A-11R-0001-07" for c in CASES[:-1])], *table])
    return root


def find(layout: Path, **changed: object) -> Found:
    source, parser = get_source("lgg_mri"), argparse.ArgumentParser()
    source.options(parser)
    parser.add_argument("--out", type=Path)
    given = {"images": layout, "expression": layout / "fpkm.tsv", "out": layout.parent / "out", **changed}
    return source.find(parser.parse_args([f"--{k.replace('_', '-')}={v}" for k, v in given.items()]))


def test_packs_the_layout(layout, tmp_path, capsys):
    out = tmp_path / "set"
    arguments = ["--images", str(layout), "--expression", str(layout / "fpkm.tsv"), "--out", str(out)]
    assert main(["source", "lgg_mri", *arguments, "--expression-transform", "log2p1"]) == 0
    assert "7 patients, 17 of 20 slices packed" in capsys.readouterr().out
    data = Dataset.open(out)
    record = next(data[i] for i in range(len(data)) if data[i].key == "TCGA_CS_4940_19960909_10")
    folder = layout / "TCGA_CS_4940_19960909"
    assert np.array_equal(record.read("image"), np.asarray(Image.open(folder / f"{record.key}.tif")))
    mask = np.asarray(Image.open(folder / f"{record.key}_mask.tif")) > 127
    assert np.array_equal(record.read("mask")[..., 0], mask)
    assert record.patient == "TCGA-CS-4940"
    assert record.labels["tumour"] == "yes"
    assert record.labels["tumour_pixels"] == mask.sum() == 20
    with open(layout / "fpkm.tsv") as f:
        column = [float(row[1]) for row in list(csv.reader(f, delimiter="\t"))[1:]]
    np.testing.assert_allclose(record.read("rna"), np.log2(np.array(column) + 1), rtol=1e-3)
    assert data.vocabulary("rna")[2] == "ENSG00000000002"


def test_stored_round_by_round(layout):
    patients = [e.patient for e in find(layout).manifest.entries]
    assert patients[:7] == CASES[:7]
    assert patients[7:14] == CASES[:7]
    numbers = [e.sample.rsplit("_", 1)[1] for e in find(layout).manifest.entries if e.patient == CASES[1]]
    assert numbers == ["2", "10", "11"], "by number, not by name"


def test_labels_are_classes_and_numbers(layout):
    found = find(layout)
    assert found.manifest.label_kinds == {
        "RNASeqCluster": "class",
        "age_at_initial_pathologic": "number",
        "tumour": "class",
        "tumour_pixels": "number",
        "tss": "class",
    }
    first, third = (next(e for e in found.manifest.entries if e.patient == CASES[i]) for i in (0, 2))
    assert first.labels["RNASeqCluster"] == "1"
    assert first.labels["tss"] == "CS"
    assert "age_at_initial_pathologic" not in third.labels


def test_patients_without_expression(layout):
    dropped, kept = find(layout), find(layout, unpaired="keep")
    assert (CASES[-1], "no expression of this patient") in dropped.unmatched
    assert len(kept.manifest.entries) == len(dropped.manifest.entries) + 3
    assert all("rna" not in e.fields for e in kept.manifest.entries if e.patient == CASES[-1])


def test_positive_slices_alone(layout):
    found = find(layout, slices="positive")
    assert {e.labels["tumour"] for e in found.manifest.entries} == {"yes"}
    assert len(found.manifest.entries) == 10
    assert Counter(r for _, r in found.unmatched)["no tumour in the slice (--slices positive)"] == 7


@pytest.mark.parametrize("unit", ["patient", "slice"])
def test_survival_is_a_patients_on_all_of_their_slices(layout, unit):
    (layout / "clinical").write_text(
        f"sample\t_PATIENT\tOS\tOS.time\n{CASES[0]}-01\t{CASES[0]}\t1\t400\n{CASES[1]}-01\t{CASES[1]}\t0\t90\n"
    )
    found = find(layout, survival=layout / "clinical", survival_unit="days", split_unit=unit)
    told = {
        (e.labels.get("case", e.patient), e.labels.get("os_days"), e.labels.get("os_event"))
        for e in found.manifest.entries
    }
    assert {(CASES[0], 400.0, "event"), (CASES[1], 90.0, "censored"), (CASES[3], None, None)} <= told
    assert len({case for case, *_ in told}) == len(told), "one answer a patient"
    assert (found.manifest.label_kinds["os_days"], found.manifest.label_kinds["os_event"]) == ("number", "class")


def test_slices_as_patients_say_that_they_leak(layout):
    plain, found = find(layout), find(layout, split_unit="slice")
    assert len({e.patient for e in found.manifest.entries}) == len(found.manifest.entries) == 17
    assert [e.labels["case"] for e in found.manifest.entries] == [e.patient for e in plain.manifest.entries]
    assert found.manifest.label_kinds["case"] == "class"
    assert "case" not in plain.manifest.label_kinds
    assert any("no measure of other patients" in n for n in found.notes)
    assert not any("split-unit" in n for n in plain.notes)


def test_what_does_not_fit_is_told_at_once(layout):
    first, second = slice_names(0)
    folder = layout / "TCGA_CS_4940_19960909"
    Image.fromarray(np.zeros((PIXELS, PIXELS + 2), np.uint8)).save(folder / f"{first}_mask.tif")
    (folder / f"{second}.tif").write_bytes(b"II*\0 not a picture")
    with pytest.raises(DataError) as caught:
        find(layout)
    assert len(caught.value.problems) == 2
    assert f"its mask ({PIXELS + 2}, {PIXELS})" in str(caught.value)
    assert f"{second}.tif: cannot be read" in str(caught.value)


def test_slices_and_masks_without_each_other(layout):
    folder = layout / "TCGA_CS_4940_19960909"
    (folder / f"{slice_names(0)[0]}_mask.tif").unlink()
    (folder / f"{slice_names(0)[1]}.tif").unlink()
    with pytest.raises(DataError, match=r"(?s)2 problems.*without its"):
        find(layout)


def test_one_file_of_a_name_and_one_table_of_labels(layout):
    folder = layout / slice_names(0)[0].rpartition("_")[0]
    first = slice_names(0)[0]
    (folder / f"{first}.png").write_bytes((folder / f"{first}.tif").read_bytes())
    with pytest.raises(DataError, match=rf"'{first}' is here and in .*{first}.png. Fix: keep one file of each slice"):
        find(layout)
    (folder / f"{first}.png").unlink()
    (layout / "clinical.csv").write_text((layout / "data.csv").read_text())
    with pytest.raises(DataError, match=r"which holds the labels, data.csv or clinical.csv\?"):
        find(layout)
    assert find(layout, labels=layout / "clinical.csv").manifest.entries


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"images": "nowhere"}, "no such folder"),
        ({"expression": "nowhere.csv"}, "no expression table"),
    ],
)
def test_missing_parts(layout, changed, why):
    with pytest.raises(DataError, match=why):
        find(layout, **changed)


def repainted(layout: Path, paint) -> None:
    """Every mask by `paint` of where it is above 0."""
    for path in layout.glob("*/*_mask.tif"):
        paint(np.asarray(Image.open(path)) > 0).save(path)


def palette(mask: np.ndarray) -> Image.Image:
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 40, 0, 0])  # a dark red: its brightness says nothing
    return picture


MASKS = {
    "0 and 1": lambda m: Image.fromarray(m.astype(np.uint8)),
    "black and white": lambda m: Image.fromarray(m),
    "palette": palette,
    "16 bits": lambda m: Image.fromarray(m.astype(np.uint16) * 4000),
    "RGBA": lambda m: Image.fromarray(np.dstack([*[m * np.uint8(255)] * 3, np.full_like(m, 255, np.uint8)])),
}


@pytest.mark.parametrize("kind", MASKS)
def test_tumour_is_found_in_every_kind_of_mask(layout, kind):
    plain = {e.sample: e.labels["tumour_pixels"] for e in find(layout).manifest.entries}
    repainted(layout, MASKS[kind])
    found = find(layout)
    assert {e.sample: e.labels["tumour_pixels"] for e in found.manifest.entries} == plain
    assert sum(plain.values()) > 0
    assert any("tumour is what is above 0" in n for n in found.notes)


def test_masks_with_several_values_must_say_which_is_tumour(layout):
    repainted(layout, lambda m: Image.fromarray(np.where(m, 255, 0).astype(np.uint8)))
    first = sorted(layout.glob("*/*_mask.tif"))[1]
    edged = np.array(Image.open(first))
    edged[-1, 0] = 90
    Image.fromarray(edged).save(first)
    with pytest.raises(DataError, match=r"masks hold the values 0 90 255.*--object N"):
        find(layout)
    pixels = {e.sample: e.labels["tumour_pixels"] for e in find(layout, object=128).manifest.entries}
    assert pixels[first.stem.removesuffix("_mask")] == (edged > 128).sum()
    with pytest.raises(DataError, match="give --object N instead"):
        find_stating(layout, "mask.object=128")


def find_stating(layout: Path, meaning: str) -> Found:
    source, parser = get_source("lgg_mri"), argparse.ArgumentParser()
    source.options(parser)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--meaning", action="append")
    words = [f"--images={layout}", f"--expression={layout / 'fpkm.tsv'}", f"--out={layout.parent / 'out'}"]
    return source.find(parser.parse_args([*words, f"--meaning={meaning}"]))


def test_masks_without_any_tumour_are_told(layout):
    repainted(layout, lambda m: Image.fromarray(np.zeros(m.shape, np.uint8)))
    assert any("none of 17 masks holds any object" in n for n in find(layout).notes)


def test_slices_of_16_bits_keep_them(layout, tmp_path):
    for path in layout.glob("*/TCGA*.tif"):  # not the twins of macOS
        if not path.stem.endswith("_mask"):
            Image.fromarray(np.asarray(Image.open(path))[..., 0].astype(np.uint16) * 16).save(path)
    out = tmp_path / "set"
    assert (
        main(
            ["source", "lgg_mri", "--images", str(layout), "--expression", str(layout / "fpkm.tsv"), "--out", str(out)]
        )
        == 0
    )
    data = Dataset.open(out)
    assert data.info.fields["image"].meaning["bits"] == "12"
    stored = np.asarray(Image.open(next(layout.glob(f"*/{data[0].key}.tif")))).astype(float)
    assert np.abs(data[0].read("image")[..., 0] - stored / 4095 * 255).max() <= 0.5


@pytest.mark.real
def test_real_slices(tmp_path):
    root = os.environ.get("MEDPAIR_REAL_DATA")
    if not root:
        pytest.skip("MEDPAIR_REAL_DATA does not name the real samples")
    real = Path(root) / "mgi_lgg_mri"
    found = find(real, expression=real / "rnaseq.csv.gz", out=tmp_path / "out")
    entries = found.manifest.entries
    with open(real / "slices.csv") as f:
        rows = list(csv.DictReader(f))
    assert len(entries) == len(rows)
    assert {e.patient for e in entries} == {r["case_id"] for r in rows}
    assert len({e.patient for e in entries[:84]}) == 84
    tumour = {Path(r["image"]).stem: float(r["tumour_pixels"]) for r in rows}
    assert {e.sample: e.labels["tumour_pixels"] for e in entries} == tumour

"""The glioma source: tiles and bags with omics by barcode; and the real samples."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.check.lint import lint
from shards.errors import DataError
from shards.pack.manifest import Entry
from shards.read.dataset import Dataset
from shards.sources._survival import Survival

CASES = [f"TCGA-{10 + i % 3}-{1000 + i}" for i in range(8)]
HEADER = ["case_id", "oncotree_code", "AAA_rnaseq", "BBB_rnaseq", "AAA_cnv", "TP53_mut", "IDH1_mut"]


def table(path: Path, rows: list[list]) -> Path:
    with open(path, "w", newline="") as f:
        csv.writer(f).writerows(rows)
    return path


@pytest.fixture
def layout(tmp_path) -> dict[str, Path]:
    return written(tmp_path)


def written(tmp_path: Path) -> dict[str, Path]:
    """Three tiles of each of four cases, bags of the four others and of one without omics."""
    rng, tiles = np.random.default_rng(0), tmp_path / "tiles"
    tiles.mkdir(exist_ok=True)
    for case in CASES[:4]:
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tiles / f"{case}_r0c{i}.png")
    sizes = rng.integers(2, 5, 5)
    np.savez(
        tmp_path / "bags.npz",
        features=rng.normal(size=(sizes.sum(), 6)).astype(np.float16),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        slide=[f"{c}-01Z-00-DX1.AB-{i}" for i, c in enumerate([*CASES[4:], "TCGA-99-9999"])],
    )
    rows = [
        [c, "GBM" if i % 2 else "LGG", *rng.normal(size=2).round(3), i % 3 - 1, i % 2, 0] for i, c in enumerate(CASES)
    ]
    omics = table(tmp_path / "omics.csv", [HEADER, *rows])
    return {"tiles": tiles, "features": tmp_path / "bags.npz", "omics": omics, "out": tmp_path / "ds"}


def run(layout: dict[str, Path], *more: str) -> int:
    flags = [part for name, path in layout.items() for part in (f"--{name}", str(path))]
    return main(["source", "glioma", *flags, *more])


def test_tiles_and_bags_share_one_data_set(layout):
    assert run(layout) == 0
    assert not lint(layout["out"]).problems
    data = Dataset.open(layout["out"])
    assert len(data) == 12 + 4
    assert {n: f.shape for n, f in data.info.fields.items() if n != "meta"} == {
        "image": (16, 16, 3), "patches": (None, 6), "rna": (2,), "cnv": (1,), "mutation": (2,),
    }  # fmt: skip
    rows = {r.key: r for r in (data[i] for i in range(len(data)))}
    with open(layout["omics"]) as f:
        first = list(csv.reader(f))[1]
    tile = rows[f"{CASES[0]}_r0c1"]
    np.testing.assert_allclose(tile.read("rna"), [float(x) for x in first[2:4]], atol=2e-3)
    assert tile.read("cnv").tolist() == [-1]
    assert tile.patient == CASES[0]
    assert not tile.has("patches")
    assert (layout["out"] / "vocab" / "mutation.txt").read_text().split() == ["TP53", "IDH1"]
    assert "TCGA-99-9999" in (layout["out"] / "unmatched.csv").read_text()


def test_tiles_of_a_case_can_be_thinned(layout):
    assert run({k: v for k, v in layout.items() if k != "features"}, "--tiles-per-case", "1") == 0
    assert len(Dataset.open(layout["out"])) == 4


def test_normal_tissue_and_frozen_sections_are_left_out(layout):
    for name in (f"{CASES[0]}-11A-01-TS1_r0", f"{CASES[1]}-01A-01-BS1_r0", f"{CASES[1]}-01Z-00-DX1_r0"):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(layout["tiles"] / f"{name}.jpg")
    assert run({k: v for k, v in layout.items() if k != "features"}) == 0
    listed = (layout["out"] / "unmatched.csv").read_text()
    assert f'{CASES[0]}-11A-01-TS1_r0.jpg,"normal tissue, not tumour"' in listed
    assert f'{CASES[1]}-01A-01-BS1_r0.jpg,"frozen section (BS)' in listed
    keys = {rec.key for rec in Dataset.open(layout["out"])}
    assert f"{CASES[1]}-01Z-00-DX1_r0" in keys
    assert len(keys) == 12 + 1


def test_every_problem_of_the_tables_is_named(layout, capsys):
    rows = [
        [CASES[0], "GBM", "high", 1, 0, 2, 0],
        ["patient 7", "GBM", 1, 1, 0, 0, 0],
        [CASES[0], "GBM", 1, 2, 0, 0, 0],
    ]
    table(layout["omics"], [HEADER, *rows])
    assert run(layout) == 2
    said = capsys.readouterr().err
    for part in ("'high' is no number", "'patient 7' is no TCGA case", "mutation 2 is neither", "2 here, 1 before"):
        assert part in said


def test_labels_whose_names_are_in_other_letters_are_not_left_out(layout, capsys):
    layout["omics"].write_text(layout["omics"].read_text().replace("oncotree_code", "ONCOTREE_CODE"))
    assert run(layout) == 2
    assert "the column 'ONCOTREE_CODE' is not 'oncotree_code', a label" in (said := capsys.readouterr().err)
    assert "give it that name, or take the column out" in said
    layout["omics"].write_text(layout["omics"].read_text().replace("ONCOTREE_CODE", "oncotree_code"))
    assert run(layout) == 0


def test_nothing_to_join_and_nothing_given(layout, capsys):
    assert run({k: layout[k] for k in ("omics", "out")}) == 2
    assert "neither --tiles nor --features" in capsys.readouterr().err
    table(layout["omics"], [HEADER, ["TCGA-77-7777", "GBM", 1, 2, 0, 0, 0]])
    assert run(layout) == 2
    assert "joined nobody" in capsys.readouterr().err


def test_omics_in_the_label_table_are_not_lost_in_silence(layout, capsys):
    labels = table(
        layout["out"].parent / "labels.csv", [["case_id", "label", "EGFR_cnv"], *[[c, "a", 1] for c in CASES]]
    )
    assert run(layout, "--labels", str(labels)) == 0
    assert "1 columns of omics in" in (said := capsys.readouterr().out)
    assert "(EGFR_cnv): give it with --omics too" in said


@pytest.mark.real
def test_the_real_sample(real_data, tmp_path):
    base = real_data / "mrm_glioma"
    tables = [str(base / n) for n in ("rnaseq.csv.gz", "labels.csv", "rnaseq_roi.csv")]
    flags = ["--features", str(base / "hipt_regions.npz"), "--tiles", str(base / "roi_tiles"), "--omics", *tables]
    assert main(["source", "glioma", *flags, "--out", str(tmp_path / "g")]) == 0
    assert not lint(tmp_path / "g").problems
    data = Dataset.open(tmp_path / "g")
    assert len(data) == 162 + 32
    assert {n: f.shape for n, f in data.info.fields.items() if n in ("rna", "cnv", "mutation")} == {
        "rna": (1544,), "cnv": (30,), "mutation": (16,),
    }  # fmt: skip


def test_survival_of_a_clinical_table_labels_tiles_and_bags(layout, tmp_path, capsys):
    """As in the source of lung slides; a label of such a name that is there already is not written over."""
    lines = [f"{c}\t{10 + i}\t{('0:LIVING', '1:DECEASED')[i % 2]}" for i, c in enumerate(CASES[:6])]
    (tmp_path / "clinical.txt").write_text("PATIENT_ID\tOS_MONTHS\tOS_STATUS\n" + "\n".join(lines) + "\n")
    assert run(layout, f"--survival={tmp_path / 'clinical.txt'}") == 0
    assert "OS: known of 6 of 8 cases, 3 with the event" in capsys.readouterr().out
    with Dataset.open(layout["out"]) as data:
        told = {r.patient: (r.labels["os_months"], r.labels["os_event"]) for r in data}
    assert told == {c: (10.0 + i, ("censored", "event")[i % 2]) if i < 6 else (None, None) for i, c in enumerate(CASES)}
    there = [Entry("a", "a", CASES[0], labels={"os_event": "no"})]
    with pytest.raises(DataError, match="os_event: a label of this name is there already"):
        Survival({CASES[0]: (1.0, True)}, "os_days", "os_event").put(there)
    assert there[0].labels == {"os_event": "no"}

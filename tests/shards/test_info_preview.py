"""What info tells, against counting by hand; what preview draws, against the data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from manifests import Sources, sources
from PIL import Image

from shards.check.info import collect, size, text
from shards.check.preview import _shown_labels, draw, principal_components
from shards.errors import DataError
from shards.pack.options import PackOptions
from shards.pack.split import resplit
from shards.read.dataset import Dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    made = sources(tmp_path_factory.mktemp("in") / "in", count=20)
    for values in made.expression.values():
        values[3] = "7"
    made.rows[5]["field:rna"] = made.rows[6]["field:image"] = ""
    made.rows[7]["label:age"] = ""
    return made


@pytest.fixture(scope="module")
def folder(made: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = PackOptions(
        source="a hospital", licence="CC-BY-4.0", commercial="no", citation="A et al.", shard_samples=6
    )
    return made.pack(tmp_path_factory.mktemp("out") / "cohort", options)


def test_counts_are_those_of_the_data(folder: Path) -> None:
    facts = collect(folder)
    with Dataset.open(folder) as data:
        sizes = sorted(len(rec.read("patches")) for rec in data)
        stored = {n: sum(len(data.raw(i, [n])[0]) for i in range(20) if data[i].has(n)) for n in ("rna", "image")}
    assert facts["fields"]["patches"]["rows"]["min"] == sizes[0]
    assert facts["fields"]["patches"]["rows"]["max"] == sizes[-1]
    assert facts["fields"]["patches"]["rows"]["sum"] == sum(sizes)
    assert {n: facts["fields"][n]["bytes"] for n in stored} == stored
    assert facts["fields"]["rna"] | {"bytes": 0} == {
        "kind": "array",
        "dtype": "float16",
        "shape": (20,),
        "samples": 19,
        "coverage": 0.95,
        "bytes": 0,
        "vocabulary": "vocab/rna.txt",
        "meaning": {"transform": "none"},
        "constant": 1,
    }
    assert facts["not_stored"] == {"patches": ["encoder", "magnification", "patch_size"]}
    assert facts["labels"]["subtype"] == {"kind": "class", "missing": 0, "classes": {"LUAD": 10, "LUSC": 10}}
    assert facts["labels"]["age"]["missing"] == 1
    assert facts["modalities"]["image + patches + report + rna"] == 18
    assert sum(s["samples"] for s in facts["splits"].values()) == 20
    assert sum(s["classes"]["subtype"]["LUAD"] for s in facts["splits"].values()) == 10
    assert (facts["source"], facts["licence"], facts["shards"]) == ("a hospital", "CC-BY-4.0", 4)
    assert (facts["commercial"], facts["citation"]) == ("no", "A et al.")
    assert facts["bytes"] == sum(p.stat().st_size for p in folder.glob("*.tar"))


def test_facts_are_plain_json(folder: Path) -> None:
    assert json.loads(json.dumps(collect(folder)))["samples"] == 20


def test_text_names_what_matters(folder: Path) -> None:
    shown = text(collect(folder))
    for part in (
        "cohort (version 1)",
        "CC-BY-4.0; commercial use: no",
        "citation     A et al.",
        "20 of 20 patients",
        "float16 [N, 8]",
        "median",
        "LUAD 10, LUSC 10",
        "1 features constant in train",
        "95%",
        "(1 missing)",
    ):
        assert part in shown
    assert max(map(len, shown.splitlines())) < 160


def test_sizes_read_well() -> None:
    assert [size(n) for n in (12, 1500, 2_500_000, 8.5e9, 3e12)] == ["12 B", "1.5 kB", "2.5 MB", "8.5 GB", "3.00 TB"]


def test_info_refuses_a_changed_data_set(made: Sources, tmp_path: Path) -> None:
    folder = made.pack(tmp_path / "out")
    (folder / "splits.csv").write_text("sample,patient,split\n")
    with pytest.raises(DataError, match="changed since"):
        collect(folder)


def test_label_fractions_are_listed(made: Sources, tmp_path: Path) -> None:
    folder = made.pack(tmp_path / "out")
    resplit(folder, {"train": 1.0}, 0, label_fractions=[0.5])
    assert "label fractions: labels/train-50.csv" in text(collect(folder))


def test_picture_shows_the_images_in_their_class_colour(folder: Path, tmp_path: Path) -> None:
    picture = np.asarray(Image.open(draw(folder, tmp_path / "new" / "p.png")).convert("RGB")).astype(int)
    assert picture.shape[1] > 1000
    for colour in ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)):  # both classes appear
        assert (np.abs(picture - colour).sum(-1) < 12).sum() > 500
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]


def test_same_data_same_picture(folder: Path, tmp_path: Path) -> None:
    assert draw(folder, tmp_path / "a.png").read_bytes() == draw(folder, tmp_path / "b.png").read_bytes()


def test_picture_of_genes_alone(tmp_path: Path) -> None:
    made = sources(tmp_path / "in", count=5)
    made.rows = [{k: r[k] for k in ("sample", "patient", "field:rna")} for r in made.rows]
    assert draw(made.pack(tmp_path / "out"), tmp_path / "p.png").stat().st_size > 5000


def test_many_labels_leave_room_for_those_that_lack_most(tmp_path: Path) -> None:
    made = sources(tmp_path / "in", count=8)
    for i, r in enumerate(made.rows):
        r |= {f"label:extra{n:02d}": "" if n >= 30 and i < 3 else str(n + i) for n in range(40)}
    with Dataset.open(made.pack(tmp_path / "out")) as data:
        shown, rest = _shown_labels(data, 14)
        assert (len(shown), rest) == (14, 42 - 14)
        assert set(shown) >= {f"extra{n}" for n in range(30, 40)}
        assert shown == [n for n in data.info.labels if n in shown]
    assert draw(tmp_path / "out", tmp_path / "p.png").stat().st_size > 5000


def test_colouring_by_what_is_no_class(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--label: no class label 'age'. Fix: one of: subtype"):
        draw(folder, tmp_path / "p.png", "age")
    assert not (tmp_path / "p.png").exists()


def test_principal_components_find_the_direction_of_spread() -> None:
    rng = np.random.default_rng(0)
    factor_N = rng.normal(size=200)
    x_ND = np.outer(factor_N, rng.choice([-1, 1], 30)) + 0.1 * rng.normal(size=(200, 30))
    x_ND[3, 4] = np.nan
    xy_N2, share = principal_components(x_ND)
    assert abs(np.corrcoef(xy_N2[:, 0], factor_N)[0, 1]) > 0.99
    assert share[0] > 0.9
    assert np.isfinite(xy_N2).all()

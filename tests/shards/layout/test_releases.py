"""Sets that are out in several forms: each of them leads to the samples of the other, or to its own."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.errors import DataError
from shards.read.dataset import Dataset
from tests.shards.layout import cohorts
from tests.shards.layout import miniatures as mini
from tests.shards.layout.quirks import quirk
from tests.shards.layout.test_cohorts import packed
from tests.shards.layout.test_layouts import find, made


def what_it_holds(name: str, root: Path) -> dict[str, tuple[object, ...]]:
    """Of each sample: patient, split, labels and the values of its files."""
    entries = find(name, root).manifest.entries

    def values(e: object) -> list[tuple[str, bytes]]:
        return sorted((n, np.asarray(Image.open(r.path)).tobytes()) for n, r in e.fields.items())  # type: ignore[attr-defined]

    return {e.sample: (e.patient, e.split, sorted(e.labels.items()), values(e)) for e in entries}


@quirk("rfmid", "second release")
def test_the_lettered_folders_of_rfmid(tmp_path):
    root = made("rfmid", tmp_path)
    before = what_it_holds("rfmid", root)
    lettered = root / "A. RFMiD_All_Classes_Dataset"
    for letter, (folder, images, table, _, _) in zip("abc", mini.RFMID_PARTS, strict=True):
        of = {"Test": "Testing"}.get(images, images)
        (lettered / "2. Groundtruths").mkdir(parents=True, exist_ok=True)
        (root / folder / table).rename(lettered / "2. Groundtruths" / f"{letter}. {table}")
        shutil.move(root / folder / images, lettered / "1. Original Images" / f"{letter}. {of} Set")
        shutil.rmtree(root / folder.split("/")[0])
    assert what_it_holds("rfmid", root) == before


def test_palm_of_2024(tmp_path):
    """Other folders, and photographs of validation and test, whose labels no table has: they are counted."""
    root = made("palm", tmp_path)
    before = what_it_holds("palm", root)
    new = root / "PALM" / "Training"
    new.mkdir(parents=True)
    (root / "PALM-Training400" / "PALM-Training400").rename(new / "Images")
    (root / "PALM-Training400-Annotation-D&F" / "Disc_Masks").rename(new / "Disc Masks")
    (root / "PALM-Training400-Annotation-Lession" / "Lesion_Masks").rename(new / "Lesion Masks")
    mini.picture(root / "PALM" / "Validation" / "Images" / "V0001.jpg", 99, colour=True)
    assert what_it_holds("palm", root) == before
    notes = find("palm", root).notes
    assert "1 files for 'image' are in no table, such as PALM/Validation/Images/V0001.jpg" in notes
    assert "6 of 10 samples have no 'mask_atrophy'" in notes


@quirk("chexpert", "four batches")
def test_chexpert_in_four_batches(tmp_path):
    root = made("chexpert", tmp_path)
    before = what_it_holds("chexpert", root)
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    (root / "CheXpert-v1.0-small").rename(first)
    for table in ("train.csv", "valid.csv"):
        text = (first / table).read_text()
        (first / table).write_text(text.replace("CheXpert-v1.0-small/", "CheXpert-v1.0/"))
    for i, person in enumerate(sorted((first / "train").iterdir())):
        batch = root / f"CheXpert-v1.0 batch {2 + i // 20} (train {1 + i // 20})"
        batch.mkdir(exist_ok=True)
        person.rename(batch / person.name)
    (first / "train").rmdir()
    assert what_it_holds("chexpert", root) == before
    mini.picture(root / "CheXpert-v1.0 batch 2 (train 1)" / "patient99999" / "study1" / "view1_frontal.jpg", 9)
    assert any("patient99999/study1/view1_frontal.jpg" in n for n in find("chexpert", root).notes)


@quirk("chexpert_plus")
def test_reports_of_chexpert_plus(tmp_path):
    root = made("chexpert_plus", tmp_path)
    entries = {e.sample: e for e in find("chexpert_plus", root).manifest.entries}
    assert entries["patient00001_study1_view1_frontal"].fields["image"].path.suffix == ".png"
    assert entries["patient00001_study1_view2_lateral"].labels == {"sex": "female", "age": 40.0, "view": "lateral"}
    texts = [entries[f"patient{i:05d}_study1_view1_frontal"].texts["report"] for i in (1, 2, 3)]
    assert texts == [
        'Heart of "size" 0.\nLungs, clear.\n1. Number 0 is well.', "1. Number 1 is well.", 'Heart of "size" 2.\nLungs, clear.',
    ]  # fmt: skip
    both = [entries[f"patient00006_study1_view{v}"].texts for v in ("1_frontal", "2_lateral")]
    assert both[0] == both[1]
    assert {e.split for n, e in entries.items() if "patient645" in n} == {"test"}
    (root / "PNG").rename(root / "CheXpert-v1.0")
    for path in sorted((root / "CheXpert-v1.0" / "PNG").rglob("*.png")):
        target = root / "CheXpert-v1.0" / path.relative_to(root / "CheXpert-v1.0" / "PNG").with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    assert len(find("chexpert_plus", root).manifest.entries) == len(entries), "the films that people have of CheXpert"


def renamed(root: Path, form: str) -> None:
    """The main table of UK Biobank as another program writes it: its name, the names of its columns, words for codes."""
    with open(root / "ukb41234.csv", newline="") as f:
        header, *rows = csv.reader(f)
    (root / "ukb41234.csv").unlink()
    fields = [re.split(r"\W", c) for c in header[1:]]
    tab = form == "for R"
    if tab:
        names = ["f.eid", *(f"f.{a}.{i}.{k}" for a, i, k in fields)]
    else:
        lone, instance = {"31", "21022"}, {"21001", "20116"}
        of = [f"p{a}" + ("" if a in lone else f"_i{i}" if a in instance else f"_i{i}_a{k}") for a, i, k in fields]
        names = ["eid", *of] if form == "codes" else [f"participant.{n}" for n in ("eid", *of)]
    if form == "words":
        smoking = {"0": "Never", "1": "Previous", "2": "Current", "-3": "Prefer not to answer"}
        rows = [[r[0], {"0": "Female", "1": "Male"}[r[1]], *r[2:-1], smoking[r[-1]]] for r in rows]
    cohorts.packed(root / ("ukb41234.tab" if tab else "data_participant.csv"), names, rows, "\t" if tab else ",")


def held(data: Dataset) -> dict[str, dict[str, object]]:
    with data:
        return {r.key: dict(r.labels) for r in (data[i] for i in range(len(data)))}


@quirk("uk_biobank_fundus", "Research Analysis Platform")
@pytest.mark.parametrize("form", ["for R", "codes", "words"])
def test_phenotypes_of_uk_biobank_under_other_names(tmp_path, form):
    def change(root: Path) -> None:
        renamed(root, form)
        if form == "words":
            for path in sorted((root / "fundus").glob("*.png")):
                eye = {"21015": "Fundus (left)", "21016": "Fundus (right)"}[path.name.split("_")[1]]
                folder = root / "Bulk" / "Retinal Optical Coherence Tomography" / eye / path.name[:2]
                folder.mkdir(parents=True, exist_ok=True)
                path.rename(folder / path.name)

    assert held(packed("uk_biobank_fundus", tmp_path / "a")) == held(
        packed("uk_biobank_fundus", tmp_path / "b", change=change)
    )


def test_a_column_under_two_of_its_names_is_refused(tmp_path):
    root = made("uk_biobank_fundus", tmp_path)
    text = (root / "ukb41234.csv").read_text().splitlines()
    (root / "ukb41234.csv").write_text("\n".join([f"{text[0]},p31", *(f"{line},0" for line in text[1:])]))
    with pytest.raises(DataError, match=r"31-0\.0"):
        find("uk_biobank_fundus", root)

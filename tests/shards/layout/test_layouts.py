"""Every layout on a miniature of its set: what becomes of its quirks."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.layout import filling
from shards.layout.describe import PAGE, with_table
from shards.layout.files import about, layout_names, load
from shards.read.dataset import Dataset
from shards.sources import Found, get_source
from tests.shards.layout import miniatures as mini
from tests.shards.layout.quirks import quirk


def find(name: str, root: Path, *words: str) -> Found:
    """What the layout makes of a folder, before packing."""
    from shards.command_line import build_parser

    args = build_parser([name] if name.endswith(".yaml") else []).parse_args(
        ["source", name, "--root", str(root), "--out", str(root.parent / "out"), *words]
    )
    assert isinstance(args, argparse.Namespace)
    return get_source(name).find(args)


def made(name: str, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir(parents=True)
    mini.MINIATURES[name](root)
    return root


@pytest.mark.parametrize("name", layout_names())
def test_each_packs_its_miniature_and_leaves_nothing_behind(name, tmp_path, capsys):
    root, out = made(name, tmp_path), tmp_path / "set"
    assert main(["source", name, "--root", str(root), "--out", str(out), "--split-fractions", "0.6,0.2,0.2"]) == 0
    assert main(["lint", str(out)]) == 0, capsys.readouterr().out
    with Dataset.open(out) as data:
        assert data.info.source == name
        terms = [(i.licence, i.commercial, i.citation) for i in (data.info, load(name))]
        assert terms[0] == terms[1]
        assert all(terms[0])
        assert set(data.info.fields) - {"meta"} == set(load(name).fields)
        assert set(data.info.splits) == {"train", "val", "test"}
        if "image" in data.info.fields and data[0].has("image"):
            assert data[0].read("image").dtype == np.uint8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "set"]


@pytest.mark.parametrize("name", layout_names())
def test_each_states_its_terms(name):
    """Said in the file, not left to the default of a layout that somebody writes for themselves."""
    assert {"licence", "commercial", "citation"} <= load(name).model_fields_set


def test_each_has_a_miniature_and_a_line_about_it():
    assert set(mini.MINIATURES) == set(layout_names())
    for name in layout_names():
        assert about(name) == load(name).about


@quirk("siim_acr", "several runs")
def test_runs_of_several_rows_are_one_mask_and_minus_one_an_empty_one(tmp_path):
    found = find("siim_acr", made("siim_acr", tmp_path))
    assert not found.manifest.problems
    assert len(found.manifest.entries) == mini.SIIM_FILMS
    for i, entry in enumerate(found.manifest.entries):
        right = np.zeros((1024, 1024), np.uint8)
        for mask in mini.siim_masks(i):
            right |= mask
        assert np.array_equal(np.asarray(Image.open(entry.fields["mask"].path)), right)
        assert entry.labels == {"pneumothorax": "present" if right.any() else "absent"}
        assert entry.sample == mini.siim_name(i).replace(".", "_")
    assert any("names no people" in n for n in found.notes)


@quirk("aptos2019")
def test_grades_are_numbers_and_what_has_none_is_not_read(tmp_path):
    entries = find("aptos2019", made("aptos2019", tmp_path)).manifest
    assert [e.labels["diagnosis"] for e in entries.entries] == [float(i % 5) for i in range(mini.FILMS)]
    assert entries.label_kinds == {"diagnosis": "number"}


@quirk("rfmid")
def test_one_name_in_three_parts_and_the_published_splits(tmp_path):
    root = made("rfmid", tmp_path)
    entries = find("rfmid", root).manifest.entries
    assert Counter(e.split for e in entries) == {"train": 8, "val": 4, "test": 4}
    assert len({e.sample for e in entries}) == len({e.fields["image"].path for e in entries}) == 16
    one = next(e for e in entries if e.sample == "val_3")
    assert one.fields["image"].path == root / "Evaluation_Set/Evaluation_Set/Validation/3.png"
    assert one.labels["DR"] == "1"
    assert len(one.labels) == 46
    assert not any(e.split for e in find("rfmid", root, "--splits", "patient").manifest.entries)


@quirk("palm")
def test_inverted_bitmaps_stay_and_those_that_are_not_there_are_absent(tmp_path):
    root = made("palm", tmp_path)
    entries = {e.sample: e for e in find("palm", root).manifest.entries}
    assert sorted(entries) == sorted(mini.PALM_NAMES)
    assert {n for n, e in entries.items() if "mask_atrophy" in e.fields} == {n for n in mini.PALM_NAMES if n[0] == "P"}
    assert "mask_disc" not in entries["P0004"].fields
    disc = root / "PALM-Training400-Annotation-D&F/Disc_Masks/H0002.bmp"
    assert np.array_equal(
        np.asarray(Image.open(entries["H0002"].fields["mask_disc"].path)), np.asarray(Image.open(disc))
    )
    assert [entries[n].labels["myopia"] for n in ("H0001", "N0001", "P0001")] == ["high", "none", "pathologic"]


@quirk("rsna_pneumonia", "a row a box")
def test_boxes_of_a_film_come_together(tmp_path):
    found = find("rsna_pneumonia", made("rsna_pneumonia", tmp_path))
    entries = found.manifest.entries
    assert len(entries) == mini.FILMS
    for i, entry in enumerate(entries):
        assert entry.labels["pneumonia"] == ("1" if i % 3 else "0")
        assert ("boxes" in entry.fields) == bool(i % 3)
        if i % 3:
            assert np.load(entry.fields["boxes"].path).tolist() == [[2 + k, 3, 5, 8] for k in range(i % 3)]
    assert {e.labels["finding"] for e in entries} == {"Lung Opacity", "Normal", "No Lung Opacity / Not Normal"}
    assert found.pack["meanings"]["boxes"] == {"box": "x y width height", "unit": "px"}


@quirk("nih_chestxray14")
def test_lists_part_patients_and_validation_is_drawn_from_training(tmp_path):
    root = made("nih_chestxray14", tmp_path)
    found = find("nih_chestxray14", root)
    entries = found.manifest.entries
    assert not found.manifest.problems
    of = {e.patient: e.split for e in entries}
    assert {p for p, s in of.items() if s == "test"} == {"10", "11", "12"}
    assert Counter(of.values())["val"] == 1
    assert any("no validation list was published" in n for n in found.notes)
    assert entries[0].labels["edema"] == entries[0].labels["mass"] == "present"
    assert Counter(entries[0].labels.values())["present"] == 2
    assert entries[1].labels["no_finding"] == "present"
    assert len(entries[0].labels) == 16, "fourteen findings, none of them, the view"
    assert np.load(entries[0].fields["boxes"].path).tolist() == [[1.5, 2.25, 7, 9.5], [1.5, 2.25, 3, 9.5]]
    assert [
        e for e in find("nih_chestxray14", root, "--views", "PA").manifest.entries if e.labels["view"] != "PA"
    ] == []


@quirk("chexpert")
def test_uncertain_blank_and_lateral_stay_apart(tmp_path):
    root = made("chexpert", tmp_path)
    found = find("chexpert", root)
    entries = {e.sample: e for e in found.manifest.entries}
    assert entries["patient00001_study1_view1_frontal"].patient == "patient00001"
    first = entries["patient00001_study1_view1_frontal"].labels
    assert [first.get(n) for n in ("no_finding", "enlarged_cardiomediastinum", "cardiomegaly", "lung_opacity")] == [
        "present", "absent", "uncertain", None,
    ]  # fmt: skip
    assert {e.split for n, e in entries.items() if "patient645" in n} == {"test"}
    assert "views: 64 frontal, 13 lateral" in found.notes
    frontal = find("chexpert", root, "--views", "frontal")
    assert len(frontal.manifest.entries) == 64
    assert Counter(why for _, why in frontal.unmatched) == {"view lateral (--views)": 13}
    inside = find("chexpert", root / "CheXpert-v1.0-small")
    assert len(inside.manifest.entries) == 77, "the folder of the release itself"


@quirk("covid19_image_collection")
def test_a_finding_that_is_a_path_and_rows_that_are_no_films(tmp_path):
    found = find("covid19_image_collection", made("covid19_image_collection", tmp_path))
    entries = found.manifest.entries
    assert len(entries) == 16
    said = {e.labels.get("finding"): (e.labels.get("is_covid"), e.labels.get("label")) for e in entries}
    assert said == {
        "Pneumonia/Viral/COVID-19": ("1", "viral"), "Pneumonia/Bacterial/Streptococcus": ("0", "bacterial"), "No Finding": ("0", "normal"),
        None: (None, None), "Pneumonia/Viral/SARS": ("0", "viral"), "Tuberculosis": ("0", None),
    }  # fmt: skip
    assert Counter(why for _, why in found.unmatched) == {"no film (CT or another)": 2}
    assert {e.labels["view"] for e in entries} == {"PA", "AP Supine", "lateral"}


@quirk("iu_xray")
def test_parts_of_a_report_that_are_blank_are_left_out(tmp_path):
    entries = {e.sample: e for e in find("iu_xray", made("iu_xray", tmp_path)).manifest.entries}
    assert entries["3_IM-0003-1001_dcm"].texts == {"report": "No XXXX in 3."}
    assert entries["4_IM-0004-1001_dcm"].texts == {"report": "The heart of number 4 is normal."}
    assert entries["5_IM-0005-2001_dcm"].texts["report"] == "The heart of number 5 is normal.\nNo XXXX in 5."


def test_the_list_in_the_docs_is_that_of_the_layouts():
    """`python -m shards layouts` writes it."""
    page = PAGE.read_text()
    assert with_table(page) == page
    assert all(f"`{name}`" in page for name in layout_names())


@pytest.mark.parametrize("name", ["rsna_pneumonia", "siim_acr"])
def test_two_processes_convert_to_the_same_bytes(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(filling, "PART", 3)
    root, said = made(name, tmp_path), []
    for jobs in ("1", "2"):
        words = ["--root", str(root), "--out", str(tmp_path / "set"), "--split-fractions", "0.6,0.2,0.2", "--overwrite"]
        assert main(["source", name, *words, "--jobs", jobs]) == 0
        files = {p.name: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()}
        said.append((capsys.readouterr().out, files))
    assert said[0] == said[1]

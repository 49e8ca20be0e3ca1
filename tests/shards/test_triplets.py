"""Triplets of reports: what is present, absent, possible, and where; a table of others; the measure against manual indexing."""

from __future__ import annotations

import io
import json
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.read.dataset import Dataset
from shards.tables.report_triplets import matrix, mentions, of_report
from shards.tables.report_words import ENTITIES, POSITIONS

E, P = list(ENTITIES), list(POSITIONS)


def said(report: str) -> dict[str, int]:
    """Entities of a report that are present (1), absent (0) or possible (2)."""
    found: dict[str, int] = {}
    for m in mentions(report):
        found.setdefault(E[m.entity], 2 if m.present is None else int(m.present))
    return found


def at(report: str, entity: str) -> set[str]:
    return {P[p] for p, row in enumerate(matrix(mentions(report))) if row[E.index(entity)] >= 0}


@pytest.mark.parametrize(
    ("report", "entity", "state"),
    [
        ("There is a small left pleural effusion.", "effusion", 1),
        ("No pleural effusion or pneumothorax.", "effusion", 0),
        ("No pleural effusion or pneumothorax.", "pneumothorax", 0),
        ("No focal consolidation, but a small nodule on the right.", "consolidation", 0),
        ("No focal consolidation, but a small nodule on the right.", "nodule", 1),
        ("Consolidation is no longer seen.", "consolidation", 0),
        ("The pneumothorax has resolved.", "pneumothorax", 0),
        ("No change in the right effusion.", "effusion", 1),
        ("The heart is not enlarged.", "cardiomegaly", 0),
        ("The heart is mildly enlarged.", "cardiomegaly", 1),
        ("Opacity which may represent pneumonia.", "pneumonia", 2),
        ("Opacity which may represent pneumonia.", "opacity", 1),
        ("INDICATION: Rule out pneumonia.\nFINDINGS: Clear lungs.", "pneumonia", None),
        ("INDICATION: Rule out pneumonia.\nFINDINGS: Clear lungs.", "clear", 1),
        ("Lungs are free of infiltrate.", "infiltrate", 0),
        ("Lungs are free of infiltrate.", "free", 1),
        ("1. No edema. 2. Stable cardiomegaly.", "cardiomegaly", 1),
        ("Pericardial effusion.", "effusion", None),
        ("Calcified granuloma.", "tail_abnorm_obs", 1),
        ("XXXX", "opacity", None),
    ],
)
def test_what_a_report_says_of_a_finding(report, entity, state):
    assert said(report).get(entity) == state


@pytest.mark.parametrize(
    ("report", "entity", "places"),
    [
        ("Opacity in the right lower lobe.", "opacity", {"lower_right_lobe"}),
        ("Small left pleural effusion.", "effusion", {"left_pleural"}),
        ("Atelectasis at the lung bases, and a nodule in the left upper lobe.", "nodule", {"upper_left_lobe"}),
        ("Atelectasis at the lung bases, and a nodule in the left upper lobe.", "atelectasis", {"lung_bases"}),
        ("The lungs are clear.", "clear", {"left_lung_unspec", "right_lung_unspec"}),
        ("Pneumonia.", "pneumonia", {"unspecified"}),
    ],
)  # fmt: skip
def test_where_a_finding_is(report, entity, places):
    assert at(report, entity) == places


def test_present_is_not_overridden_and_a_maybe_is_what_one_says():
    report = "Small nodule. No other nodule. Possible pneumonia."
    nodule, pneumonia = E.index("nodule"), E.index("pneumonia")
    for maybe in (-1, 0, 1):
        found = of_report(matrix(mentions(report), maybe))
        assert (found[nodule], found[pneumonia]) == (1, maybe)
    assert matrix([]).shape == (51, 75)
    assert set(np.unique(matrix([]))) == {-1}


@pytest.mark.timeout(60)
def test_a_text_without_an_end_is_read_in_parts():
    found = of_report(matrix(mentions("opacity of lung " * 10_000 + "x" * 5_000 + " nodule")))
    assert (found[E.index("opacity")], found[E.index("nodule")]) == (1, 1)


def packed(folder: Path, *lines: str) -> Path:
    header = "sample,patient,split,field:pgs,text:report" + (",field:triplets" if "npz#" in lines[0] else "")
    np.save(folder / "v.npy", np.ones(3, np.float32))
    (folder / "m.csv").write_text("\n".join([header, *lines]) + "\n")
    assert main(["pack", str(folder / "m.csv"), "--out", str(folder / "set"), "--overwrite"]) == 0
    return folder / "set"


REPORTS = ("s1,p1,train,v.npy,No effusion.", "s2,p2,train,v.npy,", "s3,p3,val,v.npy,Left lower lobe opacity.")


def test_reports_become_a_field(tmp_path, capsys):
    folder, out = packed(tmp_path, *REPORTS), tmp_path / "t.npz"
    assert main(["triplets", str(folder), "--out", str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["effusion", "0", "1"] in lines
    assert ["opacity", "1", "0"] in lines
    assert "2 matrices [51, 75]" in " ".join(lines[-1])
    first = out.read_bytes()
    assert main(["triplets", str(folder), "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["triplets", str(folder), "--out", str(out), "--overwrite"]) == 0
    assert out.read_bytes() == first
    with np.load(io.BytesIO(first)) as found:
        assert set(found) == {"s1", "s3"}
        assert found["s3"][P.index("lower_left_lobe"), E.index("opacity")] == 1
    cells = {"s1": f"{out.name}#s1", "s2": "", "s3": f"{out.name}#s3"}
    folder = packed(tmp_path, *(f"{line},{cells[line[:2]]}" for line in REPORTS))
    with Dataset.open(folder) as data:
        assert data[2].read("triplets").shape == (51, 75)
        assert data[2].read("triplets")[P.index("lower_left_lobe"), E.index("opacity")] == 1
        assert not data[1].has("triplets")


TABLE = "sample,entity,position,state\n"


def test_a_table_of_others_is_taken_and_what_it_names_wrongly_is_told_at_once(tmp_path, capsys):
    folder, table = packed(tmp_path, *REPORTS), tmp_path / "graph.csv"
    table.write_text(TABLE + "s3,opacity,left_lower_lung,present\ns3,nodule,unspecified,uncertain\n")
    assert main(["triplets", str(folder), "--table", str(table), "--out", str(tmp_path / "t.npz")]) == 0
    with np.load(tmp_path / "t.npz") as found:
        assert list(found) == ["s3"]
        assert np.argwhere(found["s3"] >= 0).tolist() == [[P.index("left_lower_lung"), E.index("opacity")]]
    capsys.readouterr()
    table.write_text(TABLE + "s3,opacitty,left_lower_lung,present\ns9,opacity,lung,seen\n")
    assert main(["triplets", str(folder), "--table", str(table), "--out", str(tmp_path / "u.npz")]) == 2
    told = capsys.readouterr().err
    for word in ("'opacitty' is no entity that is known (did you mean 'opacity'?)", "'s9'", "'lung'", "'seen'"):
        assert word in told
    assert not (tmp_path / "u.npz").exists()


def test_what_has_no_reports_is_refused(tmp_path, capsys):
    folder = packed(tmp_path, *REPORTS)
    assert main(["triplets", str(folder), "--field", "note", "--out", str(tmp_path / "t.npz")]) == 2
    assert "no text field 'note' (text fields: report)" in capsys.readouterr().err
    assert main(["triplets", str(folder), "--out", str(tmp_path / "t.csv")]) == 2


# Of MedKLIP's entities those that indexers gave a heading of their own.
MESH = {
    "effusion": ("pleural effusion", "hydropneumothorax"),
    "pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "opacity": ("opacity",),
    "atelectasis": ("pulmonary atelectasis",),
    "cardiomegaly": ("cardiomegaly",),
    "nodule": ("nodule",),
    "pneumonia": ("pneumonia",),
    "mass": ("mass",),
    "congestion": ("pulmonary congestion",),
    "edema": ("pulmonary edema",),
    "consolidation": ("consolidation",),
    "emphysema": ("emphysema", "pulmonary emphysema", "bullous emphysema"),
    "fracture": ("fractures, bone",),
    "hernia": ("hernia, hiatal", "hernia, diaphragmatic"),
    "infiltrate": ("infiltrate",),
    "scar": ("cicatrix",),
    "thicken": ("thickening",),
    "stent": ("stents",),
}


@pytest.mark.real
def test_rules_against_the_manual_indexing_of_3832_reports(real_data: Path):
    """Uncertain counts as present; the measured figures stand in docs/data.md."""
    counts, reports = Counter[tuple[str, bool, bool]](), 0
    with tarfile.open(real_data / "iu_reports" / "NLMCXR_reports.tgz") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is None or not member.name.endswith(".xml"):
                continue
            root = ET.fromstring(file.read())
            part = {a.get("Label"): a.text or "" for a in root.iter("AbstractText")}
            heads = [m.text.lower() for m in root.iter("major") if m.text]
            findings, impression = part.get("FINDINGS", ""), part.get("IMPRESSION", "")
            if not (findings + impression).strip() or not heads or "no indexing" in heads:
                continue
            reports += 1
            found = of_report(matrix(mentions(f"FINDINGS: {findings}\n\nIMPRESSION: {impression}"), 1))
            terms = {t.strip() for h in heads for t in h.split("/")}
            for entity, names in MESH.items():
                counts[entity, bool(terms & set(names)), bool(found[E.index(entity)] == 1)] += 1
    assert reports == 3832
    right, wrong, missed = (
        {e: counts[e, *pair] for e in MESH} for pair in ((True, True), (False, True), (True, False))
    )
    for e in MESH:
        print(
            f"{e:<14} precision {right[e] / (right[e] + wrong[e]):.2f} recall {right[e] / (right[e] + missed[e]):.2f}"
        )
    total = sum(right.values())
    assert total / (total + sum(wrong.values())) > 0.81
    assert total / (total + sum(missed.values())) > 0.95


@pytest.mark.real
def test_names_and_their_order_are_the_published_ones(real_data: Path):
    path = real_data.parent / "parity" / "image_text" / "medklip_lists.json"
    if not path.is_file():
        pytest.skip("the published lists are not part of the repository")
    lists = json.loads(path.read_text())
    assert lists["entities_75"] == E
    assert lists["positions_51"] == P

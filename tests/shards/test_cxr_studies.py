"""Studies as samples: which images, in which order, one report; and what cannot be told is refused. Nothing here is of a real person."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.check.info import collect
from shards.check.lint import lint
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.sources._cxr_views import POSITIONS, RANKS
from tests.shards.test_cxr_published import chexpert, mimic, picture, said_of, write
from tests.shards.test_cxr_reports import found, table

META = "mimic-cxr-2.0.0-metadata.csv.gz"


def line(i: int, who: str, study: str, view: str, **more: str) -> dict[str, str]:
    return {
        "image": f"images/f{i}.png",
        "patient": who,
        "study": study,
        "view": view,
        "text": f"Report {study}.",
        **more,
    }


LINES = [
    line(0, "a", "1", "LATERAL"), line(1, "a", "1", "AP"), line(2, "a", "1", "PA"), line(3, "a", "2", "Frontal"),
    line(4, "b", "3", "swimmers"), line(5, "b", "3", ""), line(6, "b", "3", "LL"), line(7, "b", "3", "AP"), line(8, "b", "3", "AP"),
    line(9, "c", "4", "PA"), line(10, "c", "4", "PA"),
]  # fmt: skip
ORDER = {"1": (2, 1, 0), "2": (3,), "3": (7, 8, 6), "4": (9, 10)}


def notes(folder: Path, lines: list[dict[str, str]] | None = None) -> Path:
    lines = LINES if lines is None else lines
    for row in lines:
        picture(folder / row["image"], int(row["image"].split("/f")[1].split(".")[0]))
    return table(folder / "notes.csv", lines)


def images(entry) -> tuple[int, ...]:
    assert list(entry.fields) == ["image", "image_2", "image_3"][: len(entry.fields)]
    return tuple(int(r.path.stem[1:]) for r in entry.fields.values())


def refused(path: Path, *more: str | Path, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern):
        raise_problems(path, *more)


def raise_problems(path: Path, *more: str | Path) -> None:
    result = found(path, "--per", "study", *more)
    if result.manifest.problems:
        raise DataError(result.manifest.problems)


# ------------------------------------------------------------------------------------------------------------ the order


def test_the_first_image_of_a_study_is_told_by_its_view(tmp_path):
    result = found(notes(tmp_path), "--per", "study")
    assert {e.sample: images(e) for e in result.manifest.entries} == ORDER
    assert not result.manifest.problems
    assert [e.texts["report"] for e in result.manifest.entries] == [f"Report {n}." for n in "1234"]
    assert sorted(result.unmatched) == [(f"images/f{i}.png", "an image beyond the 3 of its study") for i in (4, 5)]
    text = "\n".join(result.notes)
    assert "4 studies of 3 patients, by their images: 1 with 1, 1 with 2, 1 with 3, 1 with 4 or more" in text
    assert "1 studies have more than 3 images: of those 2 are left out" in text
    assert "first in a study: PA, AP, frontal, lateral, another, not known; of equal ones as listed" in text
    assert "4 studies with a report" in text


def test_neither_names_of_files_nor_other_studies_decide_the_order(tmp_path):
    """Lines of several studies in any order: within a view, the list's order alone counts."""
    lines = list(LINES)
    random.Random(3).shuffle(lines)
    result = found(notes(tmp_path, lines), "--per", "study")
    place = {row["image"]: i for i, row in enumerate(lines)}
    for entry in result.manifest.entries:
        mine = [row for row in lines if row["study"] == entry.sample]
        rank = {"PA": 0, "AP": 1, "Frontal": 2, "LATERAL": 3, "LL": 3, "swimmers": 4, "": 5}
        mine.sort(key=lambda row: (rank[row["view"]], place[row["image"]]))
        assert images(entry) == tuple(int(row["image"][8:-4]) for row in mine[:3])


def test_as_listed_is_a_choice(tmp_path):
    result = found(notes(tmp_path), "--per", "study", "--view-order", "listed")
    assert {e.sample: images(e) for e in result.manifest.entries} == {
        "1": (0, 1, 2),
        "2": (3,),
        "3": (4, 5, 6),
        "4": (9, 10),
    }
    assert "views: as the table lists them" in result.notes


def test_every_word_has_one_rank():
    assert set(POSITIONS.values()) == set(RANKS[:-1])
    assert {w: POSITIONS[w] for w in ("pa", "ap", "ll", "ap_axial")} == {
        "pa": "PA",
        "ap": "AP",
        "ll": "lateral",
        "ap_axial": "another",
    }


def test_words_that_are_no_view_are_said(tmp_path):
    lines = [row | {"view": {"PA": "PA", "LL": "upside down"}.get(row["view"], "")} for row in LINES]
    result = found(notes(tmp_path, lines), "--per", "study")
    assert any("so taken as another: 1 x 'upside down'" in n for n in result.notes)
    assert [images(e) for e in result.manifest.entries if e.sample == "3"] == [(6, 4, 5)]


# -------------------------------------------------------------------------------------------------------- published sets


@pytest.mark.parametrize("name", [META, "cxr-record-list.csv.gz", "cxr-study-list.csv.gz", "IMAGE_FILENAMES"])
def test_every_table_of_mimic_leads_to_the_same_studies(tmp_path, name):
    root = mimic(tmp_path)
    rows = [r.split(",") for r in gzip.decompress((root / META).read_bytes()).decode().split()]
    # Of the first study the film that is listed first is lateral; of the second both are PA.
    rows[1][3] = "LATERAL"
    (root / META).write_bytes(gzip.compress("\n".join(map(",".join, rows)).encode()))
    more = () if name == META else ("--views", root / META)
    words = ("--labels", root / "mimic-cxr-2.0.0-chexpert.csv.gz", "--splits", root / "mimic-cxr-2.0.0-split.csv.gz")
    result = found(root / name, "--per", "study", *more, *words)
    assert not result.manifest.problems
    entries = result.manifest.entries
    assert [e.sample for e in entries] == [f"s5000{i:04d}" for i in range(12)]
    for i, one in enumerate(entries):
        assert one.texts["report"] == f"FINDINGS: made-up report {i}."
        assert one.labels == {n: w for n, w in said_of(i).items() if w}
        assert one.split == ("train", "train", "val", "test")[i // 2 % 4]
        stems = [f"{i:04d}ab{k}" for k in ((1, 0) if i == 0 else (0, 1))]
        assert [r.path.stem[:7] for r in one.fields.values()] == stems


def test_a_list_of_reports_gives_no_order(tmp_path):
    root = mimic(tmp_path)
    refused(root / "cxr-study-list.csv.gz", pattern="no column with the view positions")
    refused(root / "cxr-study-list.csv.gz", "--view-order", "listed", pattern="nothing but names of files")
    # Of equal views the table of views tells the first, not the name of a file.
    lines = gzip.decompress((root / META).read_bytes()).decode().splitlines()
    back = root / "back.csv"
    back.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    result = found(root / "cxr-study-list.csv.gz", "--per", "study", "--views", back)
    assert [r.path.stem[4:7] for e in result.manifest.entries for r in e.fields.values()] == ["ab1", "ab0"] * 12


def test_chexpert_s_studies_are_of_each_patient(tmp_path):
    path = chexpert(tmp_path)
    result = found(path, "--per", "study")
    entries = result.manifest.entries
    assert len(entries) == 24
    assert entries[3].sample == "patient00002_study1"
    assert "studies by folder; 3 names stand with several patients, and are one study of each" in "\n".join(
        result.notes
    )
    assert any("views from train.csv, 'AP/PA', then 'Frontal/Lateral': 24 AP" in n for n in result.notes)


# ------------------------------------------------------------------------------------------------- what cannot be told


@pytest.mark.parametrize(
    ("change", "more", "pattern"),
    [
        ({"study": None}, (), r"no column with the study of an image.*--study-column.*--per image"),
        ({"view": None}, (), r"no column with the view positions.*--view-column.*--views.*--view-order listed"),
        ({"view": "x7"}, (), r"no cell is a view position \(it holds 'x7'\)"),
        ({}, ("--study-column", "visit"), r"no column 'visit' \(--study-column\)"),
        ({}, ("--view-column", "side"), r"no column 'side' \(--view-column\)"),
        ({"study": ""}, (), r"none of 11 lines can be used \(11 x no study\).*--study-column"),
        ({"image": "images/f1.png"}, (), r"10 x an image on two lines"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(tmp_path, change, more, pattern):
    lines = [{k: v for k, v in (row | change).items() if v is not None} for row in LINES]
    for row in LINES:
        picture(tmp_path / row["image"], 1)
    refused(table(tmp_path / "notes.csv", lines), *more, pattern=pattern)


@pytest.mark.parametrize(
    ("change", "more", "pattern"),
    [
        ({"text": "Another report."}, (), r"1 x two reports for one study \(1: .*line 4 and .*line 3\).*--per image"),
        ({"split": "test"}, ("--split-column", "split"), "1 x split differs among the images of a study"),
        ({"age": "61"}, ("--label-columns", "age"), "1 x label 'age' differs among the images of a study"),
    ],
)
def test_lines_of_a_study_that_contradict_each_other_are_refused(tmp_path, change, more, pattern):
    lines = [row | {"split": "train", "age": "60"} for row in LINES]
    lines[1] = lines[1] | change
    refused(notes(tmp_path, lines), *more, pattern=pattern)


def test_a_blank_contradicts_nothing(tmp_path):
    lines = [row | {"age": f"6{row['study']}"} for row in LINES]
    lines[0] |= {"text": "", "age": ""}
    lines[1] |= {"text": " Report \t 1. ", "age": "61.0"}
    result = found(notes(tmp_path, lines), "--per", "study", "--label-columns", "age", "--empty", "drop")
    assert not result.manifest.problems
    first = result.manifest.entries[0]
    assert (first.texts["report"].split(), first.labels) == (["Report", "1."], {"age": "61"})


def test_studies_without_a_report_can_be_left_out_whole(tmp_path):
    lines = [row | {"text": "" if row["study"] == "1" else row["text"]} for row in LINES]
    kept = found(notes(tmp_path, lines), "--per", "study")
    assert [("report" in e.texts) for e in kept.manifest.entries] == [False, True, True, True]
    assert "  1 studies with an empty report" in kept.notes
    result = found(notes(tmp_path, lines), "--per", "study", "--empty", "drop")
    assert [e.sample for e in result.manifest.entries] == ["2", "3", "4"]
    assert sum(why == "with an empty report" for _, why in result.unmatched) == 3


def test_a_line_without_a_study_is_left_out_and_listed(tmp_path):
    lines = [LINES[0] | {"study": "NA"}, *LINES[1:]]
    result = found(notes(tmp_path, lines), "--per", "study")
    assert ("images/f0.png", "no study") in result.unmatched
    assert {e.sample: images(e) for e in result.manifest.entries} == ORDER | {"1": (2, 1)}


def test_a_column_that_parts_the_folders_is_refused(tmp_path):
    root = mimic(tmp_path)
    rows = gzip.decompress((root / "cxr-record-list.csv.gz").read_bytes()).decode().splitlines()
    rows[1] = rows[1].replace(",50000000,", ",50000001,")
    path = write(root / "list.csv", [dict(zip(rows[0].split(","), r.split(","), strict=True)) for r in rows[1:]])
    refused(
        path,
        "--views",
        root / META,
        pattern="column 'study_id' and the folders part the images into other studies, in 2",
    )


def test_options_of_studies_want_studies(tmp_path):
    with pytest.raises(DataError, match=r"--view-order: of studies, and a sample is an image.*add --per study"):
        found(notes(tmp_path), "--view-order", "listed")


# ------------------------------------------------------------------------------------------------------ the whole way


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    lines = [
        row | {"patient": f"{row['patient']}{k}", "study": f"{row['study']}{k}"} for k in range(4) for row in LINES
    ]
    lines = [row | {"image": f"images/f{i}.png", "text": f"Report {row['study']}."} for i, row in enumerate(lines)]
    path = notes(folder, lines)
    assert main(["source", "cxr_reports", "--csv", str(path), "--per", "study", "--out", str(folder / "set")]) == 0
    return folder / "set"


def test_studies_are_packed_and_every_command_understands_them(packed, tmp_path):
    report = lint(packed)
    assert not report.problems
    assert not [w for w in report.warnings if "image" in str(w)]
    facts = collect(packed)
    assert facts["fields"]["image_3"]["coverage"] == 0.5
    assert facts["fields"]["image_2"]["meaning"] == {"study_view": "2 of 3, position"}
    assert facts["modalities"] == {
        "image + image_2 + image_3 + report": 8, "image + report": 4, "image + image_2 + report": 4,
    }  # fmt: skip
    assert main(["preview", str(packed), "--out", str(tmp_path / "p.png")]) == 0
    with Dataset.open(packed) as data:
        assert len(data) == 16
        people = {s: set(data.patients_of(data.subset(s).indices)) for s in ("train", "val", "test")}
        assert sum(map(len, people.values())) == len(set().union(*people.values())) == 12


def test_lint_tells_views_with_gaps_and_views_that_are_one_image(tmp_path):
    for i in range(6):
        picture(tmp_path / f"{i}.png", 3 * i)
    head = "sample,patient,split,field:image,field:image_2,field:image_3\n"
    rows = ["a,a,train,0.png,,1.png", "b,b,val,2.png,2.png,", "c,c,test,3.png,4.png,5.png"]
    (tmp_path / "m.csv").write_text(head + "\n".join(rows) + "\n")
    assert main(["pack", str(tmp_path / "m.csv"), "--out", str(tmp_path / "set")]) == 0
    said = "\n".join(map(str, lint(tmp_path / "set").warnings))
    assert "1 samples have image_3 and no image_2, such as a" in said
    assert "image and image_2 are the same file in 1 samples, such as b" in said


def test_the_images_of_a_study_are_read_as_they_were(packed):
    with Dataset.open(packed) as data:
        for record in data:
            shades = [int(np.asarray(record.read(n)).min()) for n in ("image", "image_2", "image_3") if record.has(n)]
            k, study = record.key[1], record.key[0]
            assert shades == [11 * int(k) + i for i in ORDER[study]]

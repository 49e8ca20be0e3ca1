"""Radiographs and reports: a table of both, MIMIC-CXR-JPG's folders, and the vocabulary of the reports."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.transforms.text import PAD, UNK, ReportTokenizer
from shards.__main__ import main
from shards.errors import DataError
from shards.pack.keys import KEY_LENGTH
from shards.pack.tokenizer import SPECIALS, train_wordpiece
from shards.read.dataset import Dataset
from shards.sources import get_source

REAL = os.environ.get("MEDPAIR_REAL_DATA")
REPORTS = ("The heart is enlarged.", "No acute disease, clear lungs.", "Small left effusion; heart normal.")


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30), value, np.uint8)).save(path)


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def notes(folder: Path, n: int = 12, **changed: str) -> Path:
    """A table of n images of n / 2 patients; `changed` replaces cells of the second line."""
    rows = []
    for i in range(n):
        picture(folder / "images" / f"film{i}.jpg", 20 * i)
        rows.append({"image": f"images/film{i}.jpg", "patient": f"c{i // 2}", "text": REPORTS[i % 3], "view": "PA"})
    rows[1] |= changed
    return table(folder / "notes.csv", rows)


def pack(csv_path: Path, out: Path, *more: str) -> int:
    return main(["source", "cxr_reports", "--csv", str(csv_path), "--out", str(out), *map(str, more)])


def found(csv_path: Path, *more: str):
    import argparse

    source, parser = get_source("cxr_reports"), argparse.ArgumentParser()
    source.options(parser)
    return source.find(parser.parse_args(["--csv", str(csv_path), *map(str, more)]))


def test_table_of_images_and_text_becomes_a_data_set(tmp_path):
    assert pack(notes(tmp_path), tmp_path / "set", "--label-columns", "view") == 0
    with Dataset.open(tmp_path / "set") as data:
        assert len(data) == 12
        first = data[0]
        assert (first.key, first.patient, first.labels["view"]) == ("film0", "c0", "PA")
        assert first.read("report") == REPORTS[0]
        assert first.read("image").shape[:2] == (20, 30)


def test_a_report_file_loses_its_byte_order_mark(tmp_path):
    path = notes(tmp_path)
    rows = list(csv.DictReader(path.open()))
    for i, row in enumerate(rows):
        (tmp_path / f"{i}.txt").write_text(row["text"], encoding="utf-8-sig")
    table(path, [{**r, "text": f"{i}.txt"} for i, r in enumerate(rows)])
    assert pack(path, tmp_path / "set", "--images", str(tmp_path), "--text-files") == 0
    with Dataset.open(tmp_path / "set") as data:
        assert [data[i].read("report") for i in range(3)] == list(REPORTS)


@pytest.mark.parametrize(
    ("change", "reason", "kept"),
    [
        ({"text": "  "}, "1 images with an empty report", 12),
        ({"text": "..."}, "1 images with an empty report", 12),
        ({"text": "x" * 30_000}, "1 images with a report over 20000 characters", 12),
        ({"image": "images/none.jpg"}, "left out: 1 x no image file", 11),
        ({"patient": ""}, "left out: 1 x no patient", 11),
    ],
)
def test_what_is_missing_is_counted(tmp_path, change, reason, kept):
    result = found(notes(tmp_path, **change))
    assert any(reason in note for note in result.notes), result.notes
    assert len(result.manifest.entries) == kept
    assert sum("report" in e.texts for e in result.manifest.entries) == 11
    assert not result.manifest.problems


def test_empty_reports_can_take_their_images_along(tmp_path):
    result = found(notes(tmp_path, text=""), "--empty", "drop")
    assert len(result.manifest.entries) == 11
    assert result.unmatched == [("images/film1.jpg", "with an empty report")]


def test_columns_that_are_not_there(tmp_path):
    path = notes(tmp_path)
    with pytest.raises(DataError, match=r"no column 'txt' \(--text-column\)") as e:
        found(path, "--text-column", "txt", "--patient-column", "who")
    assert len(e.value.problems) == 2
    with pytest.raises(DataError, match="none of 12 lines can be used"):
        found(path, "--images", tmp_path / "elsewhere")


def test_the_columns_that_were_chosen_are_said(tmp_path):
    path = notes(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{lines[0]},findings", *(f"{line},seen" for line in lines[1:])]) + "\n")
    result = found(path)
    assert result.notes[0].startswith("columns: ")
    assert "text from 'text', not findings (--text-column takes another)" in result.notes[0]


def test_text_is_data(tmp_path, capsys):
    """Nothing of a report is run, resolved or repeated, whatever is in it."""
    nasty = "__import__('os').system('touch ran') $(touch ran) {{7*7}} [MASK] secret-name"
    assert pack(notes(tmp_path, text=nasty), tmp_path / "set") == 0
    assert main(["tokenizer", str(tmp_path / "set"), "--size", "300"]) == 0
    said = capsys.readouterr()
    assert "secret-name" not in said.out + said.err
    with Dataset.open(tmp_path / "set") as data:
        assert data[1].read("report") == nasty
    assert not list(tmp_path.rglob("ran"))


def test_text_is_a_path_only_where_the_user_says_so(tmp_path):
    (tmp_path / "in" / "reports").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("not a report")
    (tmp_path / "in" / "reports" / "1.txt").write_text("clear lungs")
    path = notes(tmp_path / "in", text="../secret.txt")
    texts = [e.texts["report"] for e in found(path).manifest.entries]
    assert texts[1] == "../secret.txt"
    with pytest.raises(DataError, match="no image has a report"):
        found(path, "--text-files")
    files = ("reports/1.txt", "../secret.txt")
    rows = [{"image": f"images/film{i}.jpg", "patient": f"p{i}", "report": f} for i, f in enumerate(files)]
    result = found(table(tmp_path / "in" / "files.csv", rows), "--text-files")
    assert [e.texts for e in result.manifest.entries] == [{"report": "clear lungs"}, {}]
    assert any("1 images with a report file outside the folder" in n for n in result.notes)


def test_long_names_are_cut_and_stay_different(tmp_path):
    long = "a" * 90
    for end in "12":
        picture(tmp_path / f"{long}{end}.jpg", 9)
    rows = [{"image": f"{long}{e}.jpg", "patient": f"p{e}", "text": "words"} for e in "12"]
    keys = [e.sample for e in found(table(tmp_path / "t.csv", rows)).manifest.entries]
    assert len(set(keys)) == 2
    assert all(len(k) == KEY_LENGTH for k in keys)


def mimic(root: Path) -> Path:
    """files/pXX/pSUBJECT/sSTUDY/DICOM.jpg and files/pXX/pSUBJECT/sSTUDY.txt."""
    rows, splits, labels = [], [], []
    for i in range(9):
        study = root / "files" / "p10" / f"p1000{i}" / f"s5000{i}"
        picture(study / f"d{i}-a.jpg", 10 * i)
        if i != 4:
            study.with_suffix(".txt").write_text(f"FINAL REPORT\n{REPORTS[i % 3]}")
        rows.append({"path": f"files/p10/p1000{i}/s5000{i}/d{i}-a.jpg"})
        split = ("train", "validate", "test")[i // 3]
        splits.append({"dicom_id": f"d{i}-a", "study_id": f"5000{i}", "subject_id": f"1000{i}", "split": split})
        labels.append({"subject_id": f"1000{i}", "study_id": f"5000{i}", "Edema": ("1.0", "-1.0", "")[i % 3]})
    table(root / "splits.csv", splits)
    table(root / "labels.csv", labels)
    return table(root / "images.csv", rows)


def test_mimic_layout(tmp_path):
    result = found(mimic(tmp_path), "--splits", tmp_path / "splits.csv", "--labels", tmp_path / "labels.csv")
    entries = {e.sample: e for e in result.manifest.entries}
    assert len(entries) == 9
    one = entries["d1-a"]
    assert (one.patient, one.split, one.labels) == ("p10001", "train", {"edema": "uncertain"})
    assert one.texts["report"] == f"FINAL REPORT\n{REPORTS[1]}"
    assert entries["d4-a"].split == "val"
    assert not entries["d4-a"].texts
    assert any("1 images without a report file" in n for n in result.notes)


# ------------------------------------------------------------------------------------------------------- vocabularies


def test_vocabulary_is_stored_with_the_data_set(tmp_path, capsys):
    folder = tmp_path / "set"
    pack(notes(tmp_path), folder, "--split-fractions", "0.6,0.2,0.2")
    before = Dataset.open(folder).fingerprint
    assert main(["tokenizer", str(folder), "--size", "120"]) == 0
    with Dataset.open(folder) as data:
        assert data.fingerprint != before, "another vocabulary is another data set"
        words = data.vocabulary("report")
    assert words[:4] == SPECIALS
    assert main(["lint", str(folder)]) == 0
    assert main(["tokenizer", str(folder)]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert main(["tokenizer", str(folder), "--size", "60", "--out", str(tmp_path / "words.txt")]) == 0
    assert len((tmp_path / "words.txt").read_text().splitlines()) == 60
    (folder / "vocab" / "report.txt").write_text("[PAD]\n")
    with pytest.raises(DataError, match="hash mismatch"):
        Dataset.open(folder).vocabulary("report")


def test_only_training_reports_make_the_vocabulary(tmp_path):
    path = notes(tmp_path)
    with open(path, encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    for i, row in enumerate(rows):
        row["split"] = "train" if i < 8 else "val"
        row["text"] += " zebra zebra zebra" if i >= 8 else ""
    pack(table(path, rows), tmp_path / "set", "--split-column", "split")
    main(["tokenizer", str(tmp_path / "set"), "--size", "400"])
    words = Dataset.open(tmp_path / "set").vocabulary("report")
    assert "lungs" in words
    assert not any("z" in w for w in words)


def test_vocabulary_does_not_depend_on_order_or_on_the_process():
    first = train_wordpiece(REPORTS * 3, 70)
    assert train_wordpiece(tuple(reversed(REPORTS)) * 3, 70) == first
    assert first[:10] == [*SPECIALS, "##a", "##c", "##d", "##e", "##f", "##g"]
    assert len(first) == 70
    assert len(set(first)) == 70


def test_vocabulary_and_tokenizer_follow_the_same_rules():
    texts = ["Élévation du Diaphragme\x0b12mm", "T12 ____F/M; No.3 µg"]
    words = train_wordpiece(texts * 20, 400)
    ids, count = ReportTokenizer(words, "here").encode(" ".join(texts), 40)
    assert UNK not in ids
    whole = {w for w in ("elevation", "diaphragme", "12", "mm", "____f", "no", "3") if w in words}
    assert len(whole) == 7
    assert count == (ids != PAD).sum() - 1


def test_vocabulary_refuses_what_it_cannot_learn():
    with pytest.raises(DataError, match="no word"):
        train_wordpiece(["", " "])
    with pytest.raises(DataError, match=r"--size \d+ or more"):
        train_wordpiece(REPORTS, 10)


def test_demo_reports_have_a_vocabulary_without_unknown_words(demo_cohort):
    with Dataset.open(demo_cohort) as data:
        tokenizer = ReportTokenizer(data.vocabulary("report"), "demo")
        for i in range(0, len(data), 7):
            ids, count = tokenizer.encode(data[i].read("report"), 40)
            assert 5 < count < 40
            assert UNK not in ids


@pytest.mark.real
@pytest.mark.skipif(REAL is None, reason="MEDPAIR_REAL_DATA is not set")
def test_real_notes(tmp_path):
    folder = Path(REAL or "") / "mrm_cxr"
    fractions = ("--split-fractions", "0.7,0.15,0.15", "--label-columns", "finding,view,age")
    assert pack(folder / "notes.csv", tmp_path / "cxr", *fractions) == 0
    assert main(["tokenizer", str(tmp_path / "cxr"), "--size", "2000"]) == 0
    assert main(["lint", str(tmp_path / "cxr")]) == 0
    with Dataset.open(tmp_path / "cxr") as data:
        assert len(data) == 155
        assert data.info.patients == 99
        tokenizer = ReportTokenizer(data.vocabulary("report"), "cxr")
        counts = [tokenizer.encode(r.read("report"), 100)[1] for r in data]
    assert len(tokenizer) == 2000
    assert 40 < np.median(counts) < 100

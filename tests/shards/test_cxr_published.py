"""Chest films from the files as they are published: MIMIC-CXR-JPG, CheXpert, ChestX-ray14. Nothing here is of a real person."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.tables.keyed import read_rows
from tests.shards.test_cxr_reports import found
from trainer.downstream.targets.read import read_targets
from trainer.downstream.task.read import build_task, parse_task

ANSWERS = ("1.0", "0.0", "-1.0", "")
SAID = ("present", "absent", "uncertain", None)
FINDINGS = ("Atelectasis", "Edema", "Pleural Effusion")


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.arange(600).reshape(20, 30) % (value + 2) + value).astype(np.uint8)).save(path)


def write(path: Path, rows: list[dict[str, str]], end: str = "") -> Path:
    """A table, packed where its name says so; `end` stands behind every line."""
    lines = [",".join(rows[0]), *(",".join(r.values()) for r in rows)]
    text = "".join(f"{line}{end}\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def answers_of(i: int) -> dict[str, str]:
    """Every finding has every answer, in turn."""
    return {f: ANSWERS[(i + k) % 4] for k, f in enumerate(FINDINGS)}


def said_of(i: int) -> dict[str, str | None]:
    return {n: SAID[(i + k) % 4] for k, n in enumerate(("atelectasis", "edema", "pleural_effusion"))}


# ------------------------------------------------------------------------------------------------------- MIMIC-CXR-JPG


def mimic(root: Path, count: int = 12) -> Path:
    """The folders and tables of MIMIC-CXR-JPG and the reports of MIMIC-CXR, under `root`; two films a study."""
    films, studies, labels = [], [], []
    for i in range(count):
        subject, study = f"1000{i // 2:04d}", f"5000{i:04d}"
        folder = f"p{subject[:2]}/p{subject}/s{study}"
        for k in range(2):
            dicom = f"{i:04d}ab{k}-0000ffff-{i:08x}"
            picture(root / "files" / folder / f"{dicom}.jpg", 10 * i + k)
            (root / "files" / folder / f"._{dicom}.jpg").write_bytes(b"\0\5\x16\7 of macOS")
            films.append(
                {"dicom_id": dicom, "subject_id": subject, "study_id": study, "path": f"files/{folder}/{dicom}"}
            )
        (root / "files" / f"{folder}.txt").write_text(f"FINDINGS: made-up report {i}.")
        studies.append({"subject_id": subject, "study_id": study, "path": f"files/{folder}.txt"})
        labels.append({"subject_id": subject, "study_id": study, **answers_of(i)})
    ids = [{k: f[k] for k in ("dicom_id", "subject_id", "study_id")} for f in films]
    parts = ["train", "train", "validate", "test"]
    write(root / "mimic-cxr-2.0.0-metadata.csv.gz", [f | {"ViewPosition": "PA", "Rows": "20"} for f in ids])
    write(root / "mimic-cxr-2.0.0-split.csv.gz", [f | {"split": parts[int(f["subject_id"][-1]) % 4]} for f in ids])
    write(root / "mimic-cxr-2.0.0-chexpert.csv.gz", labels)
    write(root / "mimic-cxr-2.0.0-negbio.csv.gz", labels)
    write(root / "cxr-record-list.csv.gz", [{**ids[i], "path": f"{f['path']}.dcm"} for i, f in enumerate(films)])
    write(root / "cxr-study-list.csv.gz", studies)
    (root / "IMAGE_FILENAMES").write_text("".join(f"{f['path']}.jpg\n" for f in films))
    return root


@pytest.mark.parametrize("images", [".", "files"])
@pytest.mark.parametrize(
    "table",
    [
        "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-split.csv.gz", "cxr-record-list.csv.gz", "cxr-study-list.csv.gz",
        "IMAGE_FILENAMES",
    ],
)  # fmt: skip
def test_every_table_of_mimic_leads_to_the_same_films(tmp_path, table, images):
    root = mimic(tmp_path)
    result = found(
        root / table, "--images", root / images, "--splits", root / "mimic-cxr-2.0.0-split.csv.gz",
        "--labels", root / "mimic-cxr-2.0.0-chexpert.csv.gz",
    )  # fmt: skip
    assert not result.manifest.problems
    entries = {e.sample: e for e in result.manifest.entries}
    assert len(entries) == 24
    for i in range(12):
        for k in range(2):
            one = entries[f"{i:04d}ab{k}-0000ffff-{i:08x}"]
            assert one.patient == f"p1000{i // 2:04d}"
            assert one.split == ("train", "train", "val", "test")[i // 2 % 4]
            assert one.labels == {n: w for n, w in said_of(i).items() if w}
            assert one.texts["report"] == f"FINDINGS: made-up report {i}."
            where = f"files/p10/p1000{i // 2:04d}/s5000{i:04d}/{one.sample}.jpg"
            assert one.fields["image"].path.resolve() == (root / where).resolve()
    assert "  3 findings of 24 images: 18 present, 18 absent, 18 uncertain, 18 blank" in result.notes
    assert {"--splits: 24 of 24 joined", "--labels: 12 of 12 joined"} <= set(result.notes)


def test_negbio_in_place_of_chexpert_and_ids_that_a_data_frame_wrote(tmp_path):
    root = mimic(tmp_path)
    rows = [dict(row) for row in read_rows(root / "mimic-cxr-2.0.0-metadata.csv.gz")]
    floats = [r | {"subject_id": f"{r['subject_id']}.0", "study_id": f"s{r['study_id']}"} for r in rows]
    result = found(write(root / "m.csv", floats), "--labels", root / "mimic-cxr-2.0.0-negbio.csv.gz")
    assert [e.patient for e in result.manifest.entries][::4] == [f"p1000{i:04d}" for i in range(6)]
    odd = found_problems(write(root / "odd.csv", [rows[0] | {"study_id": "?"}]))
    assert "make no path" in odd


def found_problems(path: Path, *more: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        found(path, *more)
    return str(caught.value)


def test_tables_of_other_films_and_cells_that_are_no_answers(tmp_path):
    root = mimic(tmp_path)
    list_ = root / "IMAGE_FILENAMES"
    other = write(root / "other.csv", [{"study_id": f"6000{i:04d}", "Edema": "1.0"} for i in range(5)])
    assert "joined nobody: none of 12 of the films is among the 5 of other.csv" in found_problems(
        list_, "--labels", other
    )
    wrong = [{"study_id": f"5000{i:04d}", "Edema": ("2.0", "1.0")[i > 3]} for i in range(12)]
    problems = found(list_, "--labels", write(root / "wrong.csv", wrong)).manifest.problems
    assert [(p.what, p.where) for p in problems][:1] == [("'Edema' is '2.0'", "wrong.csv line 2")]
    assert len(problems) == 4
    twice = write(root / "twice.csv", [{"study_id": s, "Edema": "1.0"} for s in ("50000001", "s50000001")])
    assert "a study on two lines" in found_problems(list_, "--labels", twice)


def test_films_without_reports_have_to_be_meant(tmp_path):
    root = mimic(tmp_path)
    for report in root.rglob("s*.txt"):
        report.unlink()
    words = ("--labels", root / "mimic-cxr-2.0.0-chexpert.csv.gz")
    assert "pack images and labels alone: --no-reports" in found_problems(root / "IMAGE_FILENAMES", *words)
    result = found(root / "IMAGE_FILENAMES", *words, "--no-reports")
    assert len(result.manifest.entries) == 24
    assert not any("tokenizer" in n for n in result.notes)


# ------------------------------------------------------------------------------------------------------------ CheXpert


def chexpert(root: Path, name: str = "CheXpert-v1.0-small") -> Path:
    rows = []
    for i in range(24):
        path = f"train/patient{i // 3 + 1:05d}/study{i % 3 + 1}/view1_frontal.jpg"
        picture(root / name / path, i)
        rows.append(
            {
                "Path": f"CheXpert-v1.0-small/{path}",
                "Sex": "Male",
                "Age": str(40 + i),
                "Frontal/Lateral": "Frontal",
                "AP/PA": "AP",
                **answers_of(i),
            }
        )
    return write(root / name / "train.csv", rows)


@pytest.mark.parametrize(
    ("name", "images"), [("CheXpert-v1.0-small", "."), ("CheXpert-v1.0-small", None), ("mine", "mine")]
)
def test_chexpert_has_patients_by_path_and_labels_alone(tmp_path, name, images):
    result = found(chexpert(tmp_path, name), *(("--images", tmp_path / images) if images else ()))
    entries = result.manifest.entries
    assert [e.patient for e in entries] == [f"patient{i // 3 + 1:05d}" for i in range(24)]
    assert [e.labels for e in entries] == [{n: w for n, w in said_of(i).items() if w} for i in range(24)]
    assert len({e.sample for e in entries}) == 24
    assert "  3 findings of 24 images: 18 present, 18 absent, 18 uncertain, 18 blank" in result.notes
    assert not result.manifest.problems
    chosen = found(
        chexpert(tmp_path, name), *(("--images", tmp_path / images) if images else ()), "--label-columns", "Sex,Age"
    )
    assert chosen.manifest.entries[0].labels == {"Sex": "Male", "Age": 40.0}


def test_all_four_answers_reach_a_task(tmp_path):
    """1, 0, -1 and a blank are four things in the data set, and the task's choice makes numbers of them."""
    out = tmp_path / "set"
    assert main(["source", "cxr_reports", "--csv", str(chexpert(tmp_path)), "--out", str(out)]) == 0
    assert main(["lint", str(out)]) == 0
    labels = ["atelectasis", "edema", "pleural_effusion"]
    with Dataset.open(out) as data:
        assert [r.labels for r in data] == [said_of(i) for i in range(24)]
        task = parse_task(
            {"name": "own", "kind": "multilabel", "label": labels, "uncertain": "ones", "blank": "absent"}
        )
        targets = read_targets(task, data, ("image",))
        turned = {"present": 1.0, "absent": 0.0, "uncertain": 1.0, None: 0.0}
        want = [[turned[said_of(i)[n]] for n in labels] for i in range(24)]
        assert targets.value_NT.tolist() == want
        task = parse_task({"name": "own", "kind": "multilabel", "label": labels, "leave_out": ["uncertain"]})
        unknown = np.isnan(read_targets(task, data, ("image",)).value_NT)
        assert unknown.tolist() == [[said_of(i)[n] in ("uncertain", None) for n in labels] for i in range(24)]


def test_the_task_of_chexpert_names_its_columns():
    task, _ = build_task("chexpert5", [])
    assert set(task.labels) == {"atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion"}


# -------------------------------------------------------------------------------------------------------- ChestX-ray14


def nih(root: Path, cells: list[str]) -> Path:
    rows = []
    for i, cell in enumerate(cells):
        name = f"{i // 2 + 1:08d}_{i % 2:03d}.png"
        picture(root / f"images_{i % 3 + 1:03d}" / "images" / name, i)
        rows.append(
            {
                "Image Index": name,
                "Finding Labels": cell,
                "Follow-up #": str(i % 2),
                "Patient ID": str(i // 2 + 1),
                "Patient Age": f"{40 + i:03d}Y",
            }
        )
    return write(root / "Data_Entry_2017.csv", rows, end=",")


def test_findings_joined_by_bars_become_labels(tmp_path):
    cells = ["Edema|Mass", "No Finding", "Pleural_Thickening", "Hernia", "Mass", "No Finding"]
    result = found(nih(tmp_path, cells))
    assert not result.manifest.problems
    entries = result.manifest.entries
    assert [e.patient for e in entries] == ["1", "1", "2", "2", "3", "3"]
    assert {len(e.labels) for e in entries} == {15}
    for entry, cell in zip(entries, cells, strict=True):
        present = {n for n, word in entry.labels.items() if word == "present"}
        assert present == set(cell.lower().replace(" ", "_").split("|"))
        assert set(entry.labels.values()) == {"present", "absent"}
    assert {e.fields["image"].path.parent.parent.name for e in entries} == {"images_001", "images_002", "images_003"}
    task, _ = build_task("nih14", [])
    assert set(task.labels) < set(entries[0].labels)


def test_findings_that_contradict_or_are_not_known(tmp_path):
    problems = found(nih(tmp_path, ["No Finding|Mass", "Masss", "Edema", "Mass"])).manifest.problems
    assert [p.where for p in problems] == ["Data_Entry_2017.csv line 2", "Data_Entry_2017.csv line 3"]
    assert "no finding, and findings" in problems[0].what
    assert "names 'masss'" in problems[1].what
    picture(tmp_path / "images_009" / "images" / "00000001_000.png", 3)
    assert "00000001_000.png in images_001 and images_009" in found_problems(tmp_path / "Data_Entry_2017.csv")


def test_two_columns_that_could_be_meant_are_asked_about(tmp_path):
    picture(tmp_path / "a.png", 1)
    rows = [{"Image Path": "a.png", "image.path": "a.png", "patient": "p", "text": "words"}]
    assert "columns 'Image Path', 'image.path' could both be meant" in found_problems(write(tmp_path / "t.csv", rows))

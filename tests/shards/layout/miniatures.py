"""A miniature of each public layout, made with its quirks: the one place where tests know how the sets lie on a disk."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from shards.layout.files import load
from tests.shards.layout.cohorts import COHORTS

SIDE = 24
FILMS = 12
SIIM_FILMS = 6
"""Of 1024 x 1024 pixels, as the run lengths want them: fewer."""


def picture(path: Path, seed: int, colour: bool = False, side: int = SIDE) -> Path:
    """A picture of its own for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side, 3) if colour else (side, side)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


def table(path: Path, rows: Sequence[Mapping[str, object]], end: str = "") -> Path:
    """A CSV; `end` closes every line, as some published tables close theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as f:
        writer = csv.writer(f, lineterminator=f"{end}\n")
        writer.writerow(rows[0])
        writer.writerows(list(r.values()) for r in rows)
    return path


def runs_of(mask_HW: np.ndarray) -> str:
    """Kaggle's relative run lengths, down the columns: each start counts from the end of the run before."""
    flat_N = mask_HW.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat_N, [0]])))
    words, last = list[str](), 0
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        words += [str(begin - last), str(end - begin)]
        last = end
    return " ".join(words)


def siim_name(i: int) -> str:
    return f"1.2.276.0.7230010.3.1.4.8323329.{300 + i}.1517875202.{34 + i}"


def siim_masks(i: int) -> list[np.ndarray]:
    """Of every third film none, of every sixth two."""
    masks = []
    for k in range(0 if i % 3 else 1 + (i % 6 == 0)):
        mask = np.zeros((1024, 1024), np.uint8)
        mask[100 + 10 * i : 130 + 10 * i, 200 + 400 * k : 240 + 400 * k] = 1
        mask[140 + 10 * i, 190 + 400 * k : 260 + 400 * k] = 1
        masks.append(mask)
    return masks


def siim(root: Path) -> None:
    """Films as PNG, as people convert them; DICOM has tests of its own. The header's second name begins with a blank."""
    rows = []
    for i in range(SIIM_FILMS):
        path = root / "train" / f"{siim_name(i)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((1024, 1024), 10 * i + 5, np.uint8)).save(path)
        rows += [{"ImageId": siim_name(i), " EncodedPixels": f" {runs_of(m)}"} for m in siim_masks(i)]
        rows += [] if siim_masks(i) else [{"ImageId": siim_name(i), " EncodedPixels": " -1"}]
    table(root / "train-rle.csv", rows)


def aptos(root: Path) -> None:
    """A test table without grades lies beside."""
    rows = [{"id_code": f"{i:04x}ab12cd34", "diagnosis": i % 5} for i in range(FILMS)]
    for i, row in enumerate(rows):
        picture(root / "train_images" / f"{row['id_code']}.png", i, colour=True)
    table(root / "train.csv", rows)
    table(root / "test.csv", [{"id_code": "ffff00001111"}])
    picture(root / "test_images" / "ffff00001111.png", 99, colour=True)


RFMID_PARTS = (
    ("Training_Set/Training_Set", "Training", "RFMiD_Training_Labels.csv", "train", 8),
    ("Evaluation_Set/Evaluation_Set", "Validation", "RFMiD_Validation_Labels.csv", "val", 4),
    ("Test_Set/Test_Set", "Test", "RFMiD_Testing_Labels.csv", "test", 4),
)


def rfmid(root: Path) -> None:
    """Photographs are 1.png, 2.png, ... in each of three parts."""
    columns = load("rfmid").labels[0].columns
    for folder, images, name, _, count in RFMID_PARTS:
        rows = []
        for i in range(1, count + 1):
            picture(root / folder / images / f"{i}.png", len(name) * 100 + i, colour=True)
            rows.append({"ID": i, **{c: int((i + k) % 4 == 0) for k, c in enumerate(columns)}})
        table(root / folder / name, rows)


PALM_NAMES = ("H0001", "H0002", "H0003", "N0001", "N0002", "N0003", "P0001", "P0002", "P0003", "P0004")


def palm(root: Path) -> None:
    """No table. Bitmaps with 0 for the structure; the normal have no atrophy and so no file; one photograph shows no disc."""
    for i, name in enumerate(PALM_NAMES):
        picture(root / "PALM-Training400" / "PALM-Training400" / f"{name}.jpg", i, colour=True)
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        mask[2 : 6 + i % 3, 3:9] = 0
        for folder, there in (
            ("PALM-Training400-Annotation-D&F/Disc_Masks", name != "P0004"),
            ("PALM-Training400-Annotation-Lession/Lesion_Masks/Atrophy", name[0] == "P"),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            if there:
                Image.fromarray(mask).save(root / folder / f"{name}.bmp")


def rsna_name(i: int) -> str:
    return f"{i:08x}-1f2e-4d3c-9b8a-{i:012x}"


def rsna(root: Path, films: bool = True) -> None:
    """A row a box; the table of classes repeats its rows as often."""
    boxes, info = [], []
    for i in range(FILMS):
        if films:
            picture(root / "stage_2_train_images" / f"{rsna_name(i)}.png", i)
        count = i % 3
        for k in range(count):
            boxes.append({"patientId": rsna_name(i), "x": 2.0 + k, "y": 3.0, "width": 5.0, "height": 8.0, "Target": 1})
        if not count:
            boxes.append({"patientId": rsna_name(i), "x": "", "y": "", "width": "", "height": "", "Target": 0})
        kind = "Lung Opacity" if count else "Normal" if i % 2 else "No Lung Opacity / Not Normal"
        info += [{"patientId": rsna_name(i), "class": kind}] * max(count, 1)
    table(root / "stage_2_train_labels.csv", boxes)
    table(root / "stage_2_detailed_class_info.csv", info)


def nih(root: Path) -> None:
    """Brackets in the header, a comma at each line's end, twelve folders, lists of training and test, boxes of some."""
    cells = ["Edema|Mass", "No Finding", "Pleural_Thickening", "Hernia"]
    rows, lists = [], {"train_val_list.txt": list[str](), "test_list.txt": list[str]()}
    for i in range(24):
        person = i // 2 + 1
        name = f"{person:08d}_{i % 2:03d}.png"
        picture(root / f"images_{i % 3 + 1:03d}" / "images" / name, i)
        rows.append(
            {
                "Image Index": name, "Finding Labels": cells[i % 4], "Follow-up #": i % 2, "Patient ID": person,
                "Patient Age": f"{40 + i:03d}Y", "Patient Gender": "FM"[i % 2], "View Position": ("PA", "AP")[i % 2],
                "OriginalImage[Width": 2682, "Height]": 2749, "OriginalImagePixelSpacing[x": 0.143, "y]": 0.143,
            }
        )  # fmt: skip
        lists["test_list.txt" if person > 9 else "train_val_list.txt"].append(name)
    table(root / "Data_Entry_2017.csv", rows, end=",")
    for file, names in lists.items():
        (root / file).write_text("\n".join(names))
    box = {
        "Image Index": rows[0]["Image Index"],
        "Finding Label": "Mass",
        "Bbox [x": 1.5,
        "y": 2.25,
        "w": 7.0,
        "h]": 9.5,
    }
    table(root / "BBox_List_2017.csv", [box, box | {"Finding Label": "Edema", "w": 3.0}], end=",,,")


CHEXPERT_CELLS = ("1.0", "0.0", "-1.0", "")


def chexpert(root: Path, name: str = "CheXpert-v1.0-small") -> None:
    """No column of patients, paths that begin with the release's folder, one lateral view in six; valid.csv is the test split."""
    findings = load("chexpert").labels[0].columns
    for part, people in (("train", 60), ("valid", 4)):
        rows = []
        for i in range(people):
            for k, view in enumerate(("frontal", "lateral")[: 2 if i % 5 == 0 else 1]):
                path = f"{part}/patient{i + (1 if part == 'train' else 64541):05d}/study1/view{k + 1}_{view}.jpg"
                picture(root / name / path, 10 * i + k + (5 if part == "valid" else 0))
                said = {f: CHEXPERT_CELLS[(i + j) % (4 if part == "train" else 2)] for j, f in enumerate(findings)}
                who = {
                    "Sex": "Female",
                    "Age": 60 + i % 9,
                    "Frontal/Lateral": view.title(),
                    "AP/PA": "AP" if view == "frontal" else "",
                }
                rows.append({"Path": f"CheXpert-v1.0-small/{path}", **who, **said})
        table(root / name / f"{part}.csv", rows)


def chexpert_plus(root: Path) -> None:
    """Paths of JPEGs to films that are PNG, reports of several lines, an impression or findings left blank."""
    rows = []
    for part, people in (("train", 50), ("valid", 4)):
        for i in range(people):
            person = f"patient{i + (1 if part == 'train' else 64541):05d}"
            for k, view in enumerate(("frontal", "lateral")[: 2 if i % 5 == 0 else 1]):
                path = f"{part}/{person}/study1/view{k + 1}_{view}"
                picture(root / "PNG" / "PNG" / f"{path}.png", 10 * i + k + (5 if part == "valid" else 0))
                sections = {
                    "section_findings": "" if i % 7 == 1 else f'Heart of "size" {i}.\nLungs, clear.',
                    "section_impression": "" if i % 7 == 2 else f"1. Number {i} is well.",
                }
                who = {"deid_patient_id": person, "patient_report_date_order": 1, "sex": "Female", "age": 40 + i}
                rows.append(
                    {
                        "path_to_image": f"{path}.jpg", "path_to_dcm": f"{path}.dcm", "frontal_lateral": view.title(),
                        "ap_pa": "AP", "report": "NARRATIVE:\n...", **sections, **who, "split": part,
                    }
                )  # fmt: skip
    table(root / "df_chexpert_plus_240401.csv", rows)


COVID_FINDINGS = (
    "Pneumonia/Viral/COVID-19",
    "Pneumonia/Bacterial/Streptococcus",
    "No Finding",
    "todo",
    "Pneumonia/Viral/SARS",
    "Tuberculosis",
)


def covid(root: Path) -> None:
    """Several films of a patient, CT among films, findings that are none, names with dots and blanks."""
    rows = []
    for i in range(18):
        name = f"1-s2.0-S0929664620300{i:03d}-gr{i % 3}_lrg a.png"
        ct = i % 9 == 8
        if not ct:
            picture(root / "images" / name, i)
        rows.append(
            {
                "patientid": i // 2, "offset": i, "sex": "M", "age": 40 + i, "finding": COVID_FINDINGS[i // 2 % 6],
                "view": ("PA", "AP Supine", "L")[i % 3],
                "modality": "CT" if ct else "X-ray", "folder": "volumes" if ct else "images", "filename": f"{i}.nii.gz" if ct else name,
                "license": "CC BY-NC-SA",
            }
        )  # fmt: skip
    table(root / "metadata.csv", rows)


def iu(root: Path) -> None:
    """Two films of most examinations; findings or impression may be blank."""
    films, reports = [], []
    for uid in range(1, 11):
        for k, view in enumerate(("Frontal", "Lateral")[: 1 + uid % 2]):
            name = f"{uid}_IM-{uid:04d}-{k + 1}001.dcm.png"
            picture(root / "images" / "images_normalized" / name, 10 * uid + k)
            films.append({"uid": uid, "filename": name, "projection": view})
        found = "" if uid == 3 else f"The heart of number {uid} is normal."
        reports.append(
            {"uid": uid, "MeSH": "normal", "findings": found, "impression": "" if uid == 4 else f"No XXXX in {uid}."}
        )
    table(root / "indiana_projections.csv", films)
    table(root / "indiana_reports.csv", reports)


MINIATURES: dict[str, Callable[[Path], None]] = {
    "aptos2019": aptos,
    "chexpert": chexpert,
    "chexpert_plus": chexpert_plus,
    "covid19_image_collection": covid,
    "iu_xray": iu,
    "nih_chestxray14": nih,
    "palm": palm,
    "rfmid": rfmid,
    "rsna_pneumonia": rsna,
    "siim_acr": siim,
    **COHORTS,
}

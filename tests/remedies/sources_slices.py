"""Remedies of `source lgg_mri`: slices, masks, expression and labels in the layout of kaggle_3m or of a table."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.remedies.files import moved, removed, replaced, table
from tests.remedies.scenario import Command, Place, remedy
from tests.shards.test_lgg_mri import CASES, kaggle, slice_names

FOLDERS = [f"kaggle_3m/{c.replace('-', '_')}_19960909" for c in CASES]
ONE = f"{FOLDERS[0]}/{slice_names(0)[1]}"  # a slice with tumour


def slices(place: Place, *more: str, images: str = "kaggle_3m", expression: bool = True) -> Command:
    root = kaggle(place.folder / "kaggle_3m")
    genes = ["--expression", str(root / "fpkm.tsv"), "--expression-transform", "log2p1"] if expression else []
    words = ["--images", str(place.folder / images), *genes, *more]
    return Command("source", ["lgg_mri", *words, "--out", str(place.folder / "out"), "--overwrite"])


def painted(place: Place, name: str, pixels_HW: np.ndarray) -> None:
    Image.fromarray(pixels_HW).save(place.folder / f"{name}.tif")


# ----------------------------------------------------------------------------------------------------------------- masks


@remedy("say from which value on it is: --object N", r"it is: (--object N)", {"N": "128"})
def masks_of_several_values(place: Place) -> Command:
    command = slices(place)
    mask = np.zeros((24, 24), np.uint8)
    mask[:4], mask[4] = 255, 90
    painted(place, f"{ONE}_mask", mask)
    return command


@remedy("say from which value on it is tumour: --object N", r"it is tumour: (--object N)", {"N": "128"})
def masks_with_soft_edges(place: Place) -> Command:
    command = slices(place)
    mask = np.full((24, 24), 250, np.uint8)
    mask[:4] = np.arange(24) * 9
    painted(place, f"{ONE}_mask", mask)
    return command


@remedy("give --object N instead", r"give (--object N) instead", {"N": "128"}, instead=["--meaning"])
def an_object_that_is_stated(place: Place) -> Command:
    return slices(place, "--meaning", "mask.object=128")


def another_mask(place: Place) -> None:
    painted(place, f"{ONE}_mask", np.zeros((24, 24), np.uint8))


@remedy("bring the mask of this slice", r"(bring the mask of this slice)", mend=another_mask)
def a_mask_of_another_size(place: Place) -> Command:
    command = slices(place)
    painted(place, f"{ONE}_mask", np.zeros((12, 12), np.uint8))
    return command


@remedy("bring the slice and its mask again", r"(bring the slice and its mask again)", mend=another_mask)
def a_mask_that_was_cut(place: Place) -> Command:
    command = slices(place)
    (place.folder / f"{ONE}_mask.tif").write_bytes(b"II*\0")
    return command


@remedy(
    "bring the slice and its mask again",
    r"(bring the slice and its mask again)",
    mend=lambda p: painted(p, ONE, np.zeros((24, 24, 3), np.uint8)),
)
def a_slice_that_was_cut(place: Place) -> Command:
    command = slices(place)
    (place.folder / f"{ONE}.tif").write_bytes(b"II*\0")
    return command


# ---------------------------------------------------------------------------------------------------------------- slices


@remedy("no tumour is in them: give --slices all", r"give (--slices all)")
def no_slice_with_tumour(place: Place) -> Command:
    command = slices(place, "--slices", "positive")
    for path in place.folder.glob("kaggle_3m/*/TCGA*_mask.tif"):
        Image.fromarray(np.zeros((24, 24), np.uint8)).save(path)
    return command


@remedy(
    "give --images the kaggle_3m folder",
    r"give (--images the kaggle_3m folder)",
    {"the kaggle_3m folder": "{folder}/kaggle_3m"},
)
@remedy(
    "give --images the kaggle_3m folder",
    r"(--images the kaggle_3m folder, or one) with",
    {"the kaggle_3m folder, or one": "{folder}/listed"},
)
def no_folder_of_slices(place: Place) -> Command:
    command = slices(place, images="elsewhere")
    listed(place)
    return command


@remedy(
    "give --images the kaggle_3m folder",
    r"give (--images the kaggle_3m folder)",
    {"the kaggle_3m folder": "{folder}/kaggle_3m"},
)
def a_folder_without_slices(place: Place) -> Command:
    (place.folder / "empty").mkdir()
    return slices(place, images="empty")


@remedy("keep one file of each slice", r"(keep one file of each slice)", mend=removed(f"{ONE}.png"))
def a_slice_twice(place: Place) -> Command:
    command = slices(place)
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(place.folder / f"{ONE}.png")
    return command


KEPT = "apart/slice.tif"


@remedy("bring the slice, or remove the mask", r"(bring the slice), or", mend=moved(KEPT, f"{ONE}.tif"))
@remedy("bring the slice, or remove the mask", r"or (remove the mask)", mend=removed(f"{ONE}_mask.tif"))
def a_mask_without_its_slice(place: Place) -> Command:
    command = slices(place)
    moved(f"{ONE}.tif", KEPT)(place)
    return command


@remedy("_mask.tif, or remove it", r"(bring \S+_mask.tif), or", mend=moved(KEPT, f"{ONE}_mask.tif"))
@remedy("_mask.tif, or remove it", r"or (remove it)", mend=removed(f"{ONE}.tif"))
def a_slice_without_its_mask(place: Place) -> Command:
    command = slices(place)
    moved(f"{ONE}_mask.tif", KEPT)(place)
    return command


@remedy("rename it, or move it elsewhere", r"(rename it), or", mend=moved(f"{FOLDERS[0]}/odd.tif", f"{ONE}.tif"))
def a_slice_of_another_name(place: Place) -> Command:
    command = slices(place)
    moved(f"{ONE}.tif", f"{FOLDERS[0]}/odd.tif")(place)
    return command


@remedy("rename it, or move it elsewhere", r"or (move it elsewhere)", mend=moved(f"{FOLDERS[0]}/odd.tif", "odd.tif"))
def a_picture_that_is_no_slice(place: Place) -> Command:
    command = slices(place)
    painted(place, f"{FOLDERS[0]}/odd", np.zeros((24, 24), np.uint8))
    return command


# ---------------------------------------------------------------------------------------------------------- slices.csv


def listed(place: Place) -> None:
    """A table of the slices of kaggle_3m, in a folder of its own."""
    (place.folder / "listed").mkdir(exist_ok=True)
    names = [
        (c, f"{folder}/{n}") for i, (c, folder) in enumerate(zip(CASES, FOLDERS, strict=True)) for n in slice_names(i)
    ]
    rows = [
        {"case_id": c, "slice": n.rsplit("_", 1)[1], "image": f"../{n}.tif", "mask": f"../{n}_mask.tif"}
        for c, n in names
    ]
    table(place.folder / "listed" / "slices.csv", rows)


def by_table(place: Place) -> Command:
    command = slices(place, images="listed")
    listed(place)
    return command


def dropped(place: Place) -> None:
    path = place.folder / "listed" / "slices.csv"
    path.write_text(
        "".join(line for line in path.read_text().splitlines(True) if f"{slice_names(0)[1]}.tif" not in line)
    )


@remedy("bring it, or drop the line", r"(bring it), or", mend=moved(KEPT, f"{ONE}.tif"))
@remedy("bring it, or drop the line", r"or (drop the line)", mend=dropped)
def a_listed_slice_that_is_not_there(place: Place) -> Command:
    command = by_table(place)
    moved(f"{ONE}.tif", KEPT)(place)
    return command


@remedy("give a TCGA case and a slice number", r"(give a TCGA case)", mend=listed)
def a_listed_slice_of_nobody(place: Place) -> Command:
    command = by_table(place)
    replaced("listed/slices.csv", CASES[0], "patient 1")(place)
    return command


@remedy("give a table that has them", r"(give a table that has them)", mend=listed)
def a_list_without_masks(place: Place) -> Command:
    command = by_table(place)
    replaced("listed/slices.csv", ",mask", ",outline")(place)
    return command


# ---------------------------------------------------------------------------------------------------------------- tables


@remedy(
    "give one with --expression (CSV",
    r"one with (--expression)",
    {"--expression": "--expression {folder}/kaggle_3m/fpkm.tsv"},
)
def no_expression(place: Place) -> Command:
    return slices(place, "--expression-transform", "log2p1", expression=False)


@remedy("say it with --labels FILE", r"with (--labels FILE)", {"FILE": "{folder}/kaggle_3m/data.csv"})
def two_tables_of_labels(place: Place) -> Command:
    command = slices(place)
    labels = place.folder / "kaggle_3m" / "data.csv"
    (labels.parent / "clinical.csv").write_bytes(labels.read_bytes())
    return command


@remedy(
    "all must name patients as TCGA_XX_XXXX or TCGA-XX-XXXX",
    r"(all must name patients as TCGA_XX_XXXX)",
    mend=lambda p: kaggle(p.folder / "kaggle_3m"),
)
def genes_of_others(place: Place) -> Command:
    command = slices(place)
    for i, case in enumerate(CASES[:-1]):
        replaced("kaggle_3m/fpkm.tsv", case, f"TCGA-ZZ-{4940 + i}")(place)
    return command

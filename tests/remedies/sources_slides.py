"""Remedies of `source tcga_nsclc` and `source glioma`: bags of slides, tiles, expression, omics and labels by barcode."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.remedies.files import Mend, moved, removed, replace, replaced, text, without_line
from tests.remedies.scenario import Command, Place, remedy
from tests.shards import test_glioma
from tests.shards.test_bags import CASES, JOB, SLIDES, bag, tables, write


def slides(place: Place, features: Path | str, *more: str, sample: str = "") -> Command:
    """Expression and labels of eight cases with what lies at `features`."""
    words = ["--features", str(place.folder / features), *tables(place.folder, sample=sample), *more]
    return Command("source", ["tcga_nsclc", *words, "--out", str(place.folder / "out"), "--overwrite"])


# --------------------------------------------------------------------------------------------------------- bags in an .npz


def npz(place: Place, **changed: Any) -> None:
    arrays: dict[str, Any] = {
        "features": np.concatenate([bag(i) for i in range(8)]), "offsets": np.arange(9) * 5, "slide": np.array(SLIDES)
    } | changed  # fmt: skip
    np.savez(place.folder / "b.npz", **{n: v for n, v in arrays.items() if v is not None})


@remedy(
    "give --features a folder with .h5/.pt files, or an .npz",
    r"give (--features a folder with .h5/.pt files), or",
    {"a folder with .h5/.pt files": "{folder}/b"},
)
@remedy(
    "give --features a folder with .h5/.pt files, or an .npz",
    r"(--features a folder with .h5/.pt files, or an .npz)",
    {"a folder with .h5/.pt files, or an ": "{folder}/b"},
)
def no_bags(place: Place) -> Command:
    npz(place)
    write(place.folder / "b")
    return slides(place, "bags.csv")


@remedy("offsets must be whole numbers that rise", r"(offsets must be whole numbers that rise from 0)", mend=npz)
def offsets_that_do_not_reach_the_end(place: Place) -> Command:
    npz(place, offsets=np.arange(9) * 4)
    return slides(place, "b.npz")


@remedy("keep one bag of each slide", r"(keep one bag of each slide)", mend=npz)
def a_slide_twice_in_an_npz(place: Place) -> Command:
    npz(place, slide=np.array([*SLIDES[:7], SLIDES[0]]))
    return slides(place, "b.npz")


@remedy("the .npz needs features [N, D] (or --member)", r"or (--member)", {"--member": "--member feats"})
def features_of_another_name(place: Place) -> Command:
    npz(place, features=None, feats=np.concatenate([bag(i) for i in range(8)]))
    return slides(place, "b.npz")


@remedy("give an .npz of plain arrays", r"(slide=np.array\(names, dtype=str\))", mend=npz)
def names_as_objects(place: Place) -> Command:
    npz(place, slide=np.array(SLIDES, dtype=object))
    return slides(place, "b.npz")


# ------------------------------------------------------------------------------------------------------ bags in folders


@remedy(
    "give --features the folder that holds TRIDENT's features_ENCODER",
    r"give (--features the folder)",
    {"the folder": "{folder}/b"},
)
def a_folder_without_bags(place: Place) -> Command:
    write(place.folder / "b")
    (place.folder / "empty").mkdir()
    return slides(place, "empty")


ONE_OF = "give one of them, such as --features "


@remedy(ONE_OF, r"such as (--features '[^']+')")
def bags_in_two_folders_with_a_blank(place: Place) -> Command:
    write(place.folder / "all bags" / JOB / "features_resnet50")
    write(place.folder / "all bags" / JOB / "features_uni_v1")
    return slides(place, "all bags")


@remedy(ONE_OF, r"such as (--features \S+)")
def two_encoders(place: Place) -> Command:
    write(place.folder / JOB / "features_resnet50", SLIDES[:5])
    write(place.folder / JOB / "features_uni_v1", SLIDES[5:])
    return slides(place, JOB)


@remedy(ONE_OF, r"such as (--features \S+)")
def two_widths(place: Place) -> Command:
    write(place.folder / "b" / "1", SLIDES[:5])
    write(place.folder / "b" / "2", SLIDES[5:], features=bag(0, width=12))
    return slides(place, "b")


def apart(place: Place) -> None:
    for slide in SLIDES[5:]:
        moved(f"b/{slide}.h5", f"other/{slide}.h5")(place)


@remedy("keep bags that were made alike there", r"(put each kind into a folder of its own)", mend=apart)
def two_magnifications_in_a_folder(place: Place) -> Command:
    write(place.folder / "b", SLIDES[:5], about={"target_magnification": 20})
    write(place.folder / "b", SLIDES[5:], about={"target_magnification": 10})
    return slides(place, "b")


def renamed(place: Place) -> None:
    (place.folder / "j" / JOB).rename(place.folder / "j" / JOB.replace("20x", "40x"))


@remedy("if the folder's name says other than its files do", r"(rename it)", mend=renamed)
def a_folder_that_is_called_otherwise(place: Place) -> Command:
    write(place.folder / "j" / JOB / "features_uni_v1", about={"target_magnification": 40, "patch_size": 256})
    return slides(place, "j")


@remedy("keep one file of each slide, or put", r"(keep one file of each slide)", mend=removed(f"b/{SLIDES[0]}_40x.h5"))
def a_slide_twice_in_a_folder(place: Place) -> Command:
    write(place.folder / "b", [*(f"{s}_20x" for s in SLIDES), f"{SLIDES[0]}_40x"])
    return slides(place, "b")


@remedy("write the file again; it may have been cut", r"(write the file again)", mend=lambda p: write(p.folder / "b"))
def a_file_that_was_cut(place: Place) -> Command:
    write(place.folder / "b")
    (place.folder / "b" / f"{SLIDES[0]}.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    return slides(place, "b")


# ------------------------------------------------------------------------------------------------------------- members


def members(place: Place, *more: str, **shapes: tuple[int, ...]) -> Command:
    (place.folder / "b").mkdir(exist_ok=True)
    for slide in SLIDES:
        with h5py.File(place.folder / "b" / f"{slide}.h5", "w") as f:
            for name, shape in shapes.items():
                f[name] = np.ones(shape, np.float32)
    return slides(place, "b", *more)


@remedy("say it with --member NAME", r"with (--member NAME)", {"NAME": "uni"})
def two_members(place: Place) -> Command:
    return members(place, uni=(5, 6), conch=(5, 6))


@remedy("name another with --member", r"another with (--member)", {"--member": "--member uni"})
def no_such_member(place: Place) -> Command:
    return members(place, "--member", "virchow", uni=(5, 6))


@remedy("(--member names another)", r"\((--member) names another", {"--member": "--member z"}, status=0)
def a_member_of_another_name(place: Place) -> Command:
    return members(place, z=(5, 6), y=(5,))


@remedy("--regions flatten takes the patches of all regions", r"(--regions flatten) takes")
def regions_of_patches(place: Place) -> Command:
    return members(place, features=(3, 4, 6))


def coordinates(place: Place, rows: int = 5) -> None:
    write(place.folder / "p", member=None, coords=np.zeros((rows, 2), int), about={"patch_size": 256})


def with_coords(place: Place) -> Command:
    write(place.folder / "b")
    return slides(place, "b", "--coords", str(place.folder / "p"))


@remedy(
    "give --coords the folder in which CLAM or",
    r"give (--coords the folder in which)",
    {"the folder in which": "{folder}/q"},
)
def coordinates_of_nobody(place: Place) -> Command:
    write(place.folder / "q", member=None)
    (place.folder / "p").mkdir()
    return with_coords(place)


@remedy("keep the one that the features were made with", r"(keep the one)", mend=removed(f"p/{SLIDES[0]}_b.h5"))
def coordinates_twice(place: Place) -> Command:
    coordinates(place)
    write(place.folder / "p", [f"{SLIDES[0]}_b"], member=None)
    return with_coords(place)


@remedy("bring the coordinates that the features were", r"(bring the coordinates)", mend=coordinates)
def coordinates_of_other_patches(place: Place) -> Command:
    coordinates(place, rows=4)
    return with_coords(place)


# ---------------------------------------------------------------------------------------------------- what barcodes say


@remedy("(--frozen takes them)", r"\((--frozen) takes them\)", status=0)
def frozen_sections(place: Place) -> Command:
    write(place.folder / "b", [*SLIDES[:7], f"{CASES[7]}-01A-01-TS1.AA7"])
    return slides(place, "b")


TWINS = f"{CASES[0]}-01Z-00-DX1.BB0"


@remedy("or --replicates first takes the first by name", r"or (--replicates first)")
@remedy(", or --slides all takes every one", r"or (--slides all)")
@remedy("leave one of them there, or ", r"(leave one of them there)", mend=removed(f"b/{TWINS}.h5"))
def two_scans_of_a_slide(place: Place) -> Command:
    write(place.folder / "b", [*SLIDES, TWINS])
    return slides(place, "b")


@remedy("--slides all takes every one)", r"; (--slides all) takes", status=0)
def two_slides_of_a_patient(place: Place) -> Command:
    write(place.folder / "b", [*SLIDES, f"{CASES[0]}-01Z-00-DX2.BB0"])
    return slides(place, "b")


# --------------------------------------------------------------------------------------------- tables of expression and labels


@remedy(" one of its columns: ", r"give (--label-columns) one of its columns", {"-columns": "-columns subtype"})
def no_such_label(place: Place) -> Command:
    write(place.folder / "b")
    return slides(place, "b", "--label-columns", "kind")


def names_first(name: str) -> Mend:
    """The last column of a table before the others."""

    def turn(place: Place) -> None:
        rows = list(csv.reader(text(place.folder / name).splitlines()))
        (place.folder / name).write_text("".join(",".join([r[-1], *r[:-1]]) + "\n" for r in rows))

    return turn


def names_last(path: Path) -> None:
    rows = list(csv.reader(text(path).splitlines()))
    path.write_text("".join(",".join([*r[1:], r[0]]) + "\n" for r in rows))


FIRST = "write a column that names cases as TCGA-XX-XXXX first"


@remedy(FIRST, f"({FIRST})", mend=names_first("labels.csv"))
def labels_without_barcodes_in_front(place: Place) -> Command:
    write(place.folder / "b")
    command = slides(place, "b")
    names_last(place.folder / "labels.csv")
    return command


@remedy("write that column first, without row numbers", r"(write that column first)", mend=names_first("rna.csv"))
def expression_without_barcodes_in_front(place: Place) -> Command:
    write(place.folder / "b")
    command = slides(place, "b")
    names_last(place.folder / "rna.csv")
    return command


@remedy(
    "one of them must name samples as TCGA-XX-XXXX",
    r"(one of them must name samples as TCGA-XX-XXXX)",
    mend=lambda p: tables(p.folder),
)
def expression_of_nobody(place: Place) -> Command:
    write(place.folder / "b")
    command = slides(place, "b")
    replace(place.folder / "rna.csv", "TCGA-", "CASE-")
    return command


@remedy(
    "all three must name cases by TCGA barcode",
    r"(all three must name cases by TCGA barcode)",
    mend=lambda p: tables(p.folder),
)
def expression_of_others(place: Place) -> Command:
    write(place.folder / "b")
    command = slides(place, "b")
    replace(place.folder / "rna.csv", "TCGA-", "TCGA-9")
    replace(place.folder / "rna.csv", "TCGA-91", "TCGA-9")
    return command


# --------------------------------------------------------------------------------------------------------------- glioma


def glioma(place: Place, *left_out: str, more: tuple[str, ...] = (), more_omics: str = "") -> Command:
    layout = test_glioma.written(place.folder)
    flags = [w for n in ("tiles", "features") if n not in left_out for w in (f"--{n}", str(layout[n]))]
    omics = ["--omics", str(layout["omics"]), *([more_omics] if more_omics else [])]
    return Command("source", ["glioma", *omics, *flags, *more, "--out", str(place.folder / "out"), "--overwrite"])


def cell(place: Place, column: str, value: str, case: str = test_glioma.CASES[0]) -> None:
    """Another cell of a case in the table of omics."""
    rows = list(csv.reader(text(place.folder / "omics.csv").splitlines()))
    for row in rows:
        if row[0] == case:
            row[rows[0].index(column)] = value
    test_glioma.table(place.folder / "omics.csv", rows)


@remedy("give tiles by --tiles FOLDER", r"by (--tiles FOLDER)", {"FOLDER": "{folder}/tiles"})
@remedy("give tiles by --tiles FOLDER", r"by (--features FOLDER_OR_NPZ)", {"FOLDER_OR_NPZ": "{folder}/bags.npz"})
def neither_tiles_nor_bags(place: Place) -> Command:
    return glioma(place, "tiles", "features")


@remedy("give tables of omics by --omics FILE", r"by (--omics FILE)", {"FILE": "{folder}/omics.csv"})
@remedy("or --expression TABLE", r"or (--expression TABLE)", {"TABLE": "{folder}/genes.csv"})
def neither_omics_nor_expression(place: Place) -> Command:
    command = glioma(place)
    rows = [[c, i / 7, 2 - i / 3] for i, c in enumerate(test_glioma.CASES)]
    test_glioma.table(place.folder / "genes.csv", [["case_id", "TP53", "EGFR"], *rows])
    return Command("source", [w for w in command.words if w != "--omics" and not w.endswith("omics.csv")])


@remedy("give --tiles a folder of images", r"give (--tiles a folder)", {"a folder": "{folder}/tiles"})
def no_folder_of_tiles(place: Place) -> Command:
    return glioma(place, "tiles", "features", more=("--tiles", str(place.folder / "no")))


@remedy(
    "images, features and tables must name cases as TCGA-XX-XXXX",
    r"(must name cases as TCGA-XX-XXXX)",
    mend=replaced("omics.csv", "TCGA-2", "TCGA-1"),
)
def omics_of_others(place: Place) -> Command:
    command = glioma(place)
    replace(place.folder / "omics.csv", "TCGA-1", "TCGA-2")
    return command


@remedy(
    "give it that name, or take the column out",
    r"(give it that name)",
    mend=lambda p: replace(p.folder / "omics.csv", "ONCOTREE_CODE", "oncotree_code"),
)
def labels_in_other_letters(place: Place) -> Command:
    command = glioma(place)
    replace(place.folder / "omics.csv", "oncotree_code", "ONCOTREE_CODE")
    return command


FIRST_CASE, LAST = test_glioma.CASES[0], test_glioma.CASES[-1]


def second(place: Place, head: list[str], *rows: list[str]) -> Command:
    """With a second table of omics."""
    table = test_glioma.table(place.folder / "more.csv", [["case_id", *head], *rows])
    return glioma(place, more_omics=str(table))


@remedy("leave its columns out (--not-features ", r"\((--not-features '\*_mut')\)")
@remedy(
    "or bring cases that have all of them",
    r"(bring cases that have all of them)",
    mend=lambda p: second(p, ["KRAS_mut"], *([c, "1"] for c in test_glioma.CASES)),
)
def no_case_with_all_features(place: Place) -> Command:
    return second(place, ["KRAS_mut"], ["TCGA-99-9999", "1"], ["TCGA-88-8888", "0"])


@remedy(
    "name the case as TCGA-XX-XXXX, or remove the line",
    r"(name the case as TCGA-XX-XXXX)",
    mend=replaced("omics.csv", "patient 7", LAST),
)
@remedy(
    "name the case as TCGA-XX-XXXX, or remove the line",
    r"or (remove the line)",
    mend=without_line("omics.csv", "patient 7"),
)
def a_line_of_no_case(place: Place) -> Command:
    command = glioma(place)
    replace(place.folder / "omics.csv", LAST, "patient 7")
    return command


@remedy("leave the case out or impute the value", r"(leave the case out)", mend=without_line("omics.csv", FIRST_CASE))
@remedy("leave the case out or impute the value", r"or (impute the value)", mend=replaced("omics.csv", "high", "1"))
def a_value_that_is_no_number(place: Place) -> Command:
    command = glioma(place)
    cell(place, "AAA_cnv", "high")
    return command


@remedy("code mutated genes as 1", r"(code mutated genes as 1)", mend=lambda p: cell(p, "TP53_mut", "1"))
def a_mutation_of_two(place: Place) -> Command:
    command = glioma(place)
    cell(place, "TP53_mut", "2")
    return command


@remedy("keep one of the two", r"(keep one of the two)", mend=replaced("more.csv", "LGG", "GBM"))
def two_codes_of_a_case(place: Place) -> Command:
    return second(
        place, ["oncotree_code", "X_cnv"], [LAST, "LGG", "0"], *([c, "", "0"] for c in test_glioma.CASES[:-1])
    )


@remedy("keep one of the two", r"(keep one of the two)", mend=replaced("more.csv", ",1", ",0"))
def two_values_of_a_case(place: Place) -> Command:
    return second(place, ["IDH1_mut"], *([c, "0"] for c in test_glioma.CASES[:-1]), [LAST, "1"])


@remedy(
    "give it with --omics too for them",
    r"with (--omics) too",
    {"--omics": "--omics {folder}/omics.csv {folder}/labels.csv"},
    status=0,
)
def omics_in_the_labels(place: Place) -> Command:
    rows = [["case_id", "label", "EGFR_cnv"], *([c, "ab"[i % 2], str(i)] for i, c in enumerate(test_glioma.CASES))]
    return glioma(place, more=("--labels", str(test_glioma.table(place.folder / "labels.csv", rows))))

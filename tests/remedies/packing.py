"""Remedies of `shards pack`: options that a manifest's content asks for."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
from PIL import Image

from shards.pack.reference import FILMS
from tests.remedies.files import replaced
from tests.remedies.scenario import Command, Place, remedy, run
from tests.shards.layout.films import film, grey
from tests.shards.layout.test_dicom_films import layout

ROWS = 12
RNG = np.random.default_rng


def pack(place: Place, *more: str, patients: int = ROWS, **columns: Sequence[object]) -> Command:
    """A manifest of texts and these columns (label_NAME, field_NAME), and the command that packs it."""
    names = ["sample", "patient", "text:report", *(c.replace("_", ":", 1) for c in columns)]
    with open(place.folder / "m.csv", "w", newline="") as f:
        lines = [[f"s{i}", f"p{i % patients}", f"Finding {i}", *(c[i] for c in columns.values())] for i in range(ROWS)]
        csv.writer(f).writerows([names, *lines])
    return Command("shards", ["pack", str(place.folder / "m.csv"), "--out", str(place.folder / "set"), *more])


def vectors(place: Place, x_ND: np.ndarray) -> list[str]:
    for i, x_D in enumerate(x_ND):
        np.save(place.folder / f"v{i}.npy", x_D)
    return [f"v{i}.npy" for i in range(len(x_ND))]


def table(place: Place, names: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    with open(place.folder / "t.csv", "w", newline="") as f:
        csv.writer(f).writerows([["case", *names], *([f"c{i}", *r] for i, r in enumerate(rows))])
    return [f"t.csv#c{i}" for i in range(len(rows))]


def genes(names: Sequence[str], *more: Sequence[object]) -> tuple[list[str], list[list[object]]]:
    values = RNG(0).normal(size=(ROWS, len(names))).round(3).tolist()
    return list(names), [[*v, *(m[i] for m in more)] for i, v in enumerate(values)]


def images(place: Place, pixels: np.ndarray, name: str = "i") -> list[str]:
    for i in range(ROWS):
        Image.fromarray(pixels).save(place.folder / f"{name}{i}.png")
    return [f"{name}{i}.png" for i in range(ROWS)]


GENES = [f"GENE{i}" for i in range(8)]

# --------------------------------------------------------------------------------------------------------------- values


def _by_a_layout_or_saved(place: Place) -> None:
    words = ["source", layout(place.folder), "--root", str(place.folder / "root"), "--out", str(place.folder / "films")]
    status, said = run(Command("shards", words))
    assert status == 0, said
    replaced("m.csv", ".dcm", ".png")(place)
    replaced("m.csv", "root/IM1", "root/f0.png")(place)
    for i in range(ROWS):
        Image.fromarray(grey(i)).save(place.folder / "root" / f"f{i}.png")


@remedy(FILMS, r"(python -m shards source ./LAYOUT.yaml --root DIR)", mend=_by_a_layout_or_saved)
def films_as_dicom_in_a_manifest(place: Place) -> Command:
    """With an ending, and without one, as archives name them."""
    layout(place.folder)
    for i in range(ROWS):
        film(place.folder / "root" / f"f{i}.dcm", grey(i))
    film(place.folder / "root" / "IM1", grey(0))
    return pack(place, field_image=["root/IM1", *(f"root/f{i}.dcm" for i in range(1, ROWS))])


@remedy("write / in place of \\ in the paths", r"(write / in place of \\) in", mend=replaced("m.csv", "\\", "/"))
def paths_of_another_system(place: Place) -> Command:
    (place.folder / "img").mkdir()
    names = images(place, np.arange(4096, dtype=np.uint8).reshape(64, 64), "img/i")
    return pack(place, field_image=[n.replace("/", "\\") for n in names])


@remedy("choose another dtype, such as --dtype", r"such as (--dtype rna=float32)")
def too_large_for_its_dtype(place: Place) -> Command:
    return pack(place, "--dtype", "rna=float16", field_rna=vectors(place, np.full((ROWS, 4), 1e6, np.float32)))


@remedy("ask for fewer splits (", r"\((--split-fractions 1)\)")
def too_few_patients_for_three_splits(place: Place) -> Command:
    return pack(place, patients=2, field_rna=vectors(place, RNG(0).normal(size=(ROWS, 4)).astype(np.float32)))


@remedy("say what they become: --impute", r"(--impute rna=mean)")
@remedy("say what they become: --impute", r"(--impute rna=0)")
def not_a_number(place: Place) -> Command:
    x_ND = RNG(0).normal(size=(ROWS, 4)).astype(np.float32)
    x_ND[3, 1] = np.nan
    return pack(place, field_rna=vectors(place, x_ND))


@remedy("drop them, or give a number: --impute", r"(--impute rna=0)")
def never_a_number(place: Place) -> Command:
    x_ND = RNG(0).normal(size=(ROWS, 4)).astype(np.float32)
    x_ND[:, 1] = np.nan
    return pack(place, "--impute", "rna=mean", field_rna=vectors(place, x_ND))


@remedy("makes logarithms of them", r"look like counts[^:]*: (--transform rna=log2p1)", status=0)
def counts(place: Place) -> Command:
    return pack(place, "--overwrite", field_rna=vectors(place, RNG(0).poisson(500, (ROWS, 4)).astype(np.float32)))


@remedy("state what was done: --meaning", r"(--meaning rna.transform=log2p1)", status=0)
def logarithms(place: Place) -> Command:
    return pack(place, "--overwrite", field_rna=vectors(place, RNG(0).uniform(0, 9, (ROWS, 4)).astype(np.float32)))


@remedy("pack without --transform and state it", r"(--meaning rna.transform=log2p1)", status=0, instead=["--transform"])
def logarithms_twice(place: Place) -> Command:
    x_ND = RNG(0).uniform(0, 9, (ROWS, 4)).astype(np.float32)
    return pack(place, "--transform", "rna=log2p1", "--overwrite", field_rna=vectors(place, x_ND))


# --------------------------------------------------------------------------------------------------------------- images


@remedy("say what lies under them: --meaning", r"(--meaning image.opacity=black)")
@remedy("say what lies under them: --meaning", r"(--meaning image.opacity=)black \(or white", {"=": "=white"})
@remedy("say what lies under them: --meaning", r"(--meaning image.opacity=)black", {"=": "=ignore"})
def opacity(place: Place) -> Command:
    return pack(place, field_image=images(place, RNG(0).integers(0, 255, (16, 16, 4), np.uint8)))


@remedy("or take the colours: --meaning", r"(--meaning mask.opacity=ignore)")
def opacity_of_a_mask(place: Place) -> Command:
    pixels = np.full((16, 16, 4), 255, np.uint8)
    pixels[:8, :, :3], pixels[:4, :, 3] = 0, 100
    return pack(place, field_mask=images(place, pixels))


@remedy("if every colour is the object: --meaning", r"(--meaning mask.object=any)")
def colours_of_a_mask(place: Place) -> Command:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:4], pixels[4:8] = (255, 0, 0), (0, 200, 90)
    return pack(place, field_mask=images(place, pixels))


@remedy("give {}: --meaning".format("a whole number from 1 to 16"), r"(--meaning image.bits=VALUE)", {"VALUE": "12"})
def bits_that_are_none(place: Place) -> Command:
    pixels = RNG(0).integers(0, 4096, (16, 16)).astype(np.uint16)
    return pack(place, "--meaning", "image.bits=many", field_image=images(place, pixels))


# --------------------------------------------------------------------------------------------------------------- labels


@remedy("if it means that the value is not known", r"(--unknown 'pending')")
@remedy("if the column holds classes", r"(--label-kind age=class)")
def a_word_among_numbers(place: Place) -> Command:
    return pack(place, label_age=["pending", *range(40, 51)])


@remedy("if it is the name of a class", r"(--label-kind grade=class)")
def a_class_with_a_comma(place: Place) -> Command:
    return pack(place, label_grade=["1,5", "low", "high"] * 4)


@remedy("if it is the name of a class", r"(--label-kind 'Tumour Grade=class')")
def a_label_with_a_blank(place: Place) -> Command:
    return pack(place, **{"label_Tumour Grade": ["1,5", "low", "high"] * 4})


@remedy("if they are different classes", r"(--label-kind kind=class)")
def classes_spelt_in_two_ways(place: Place) -> Command:
    return pack(place, label_kind=["Adeno", "adeno", "squamous"] * 4)


@remedy("if a combination is a class", r"(--label-kind finding=class)")
def several_classes_in_a_cell(place: Place) -> Command:
    return pack(place, label_finding=["Edema", "Mass", "Edema|Mass"] * 4)


@remedy("taken as unknown (--known WORD", r"(--known WORD)", {"WORD": "unknown"}, status=0)
def a_word_for_unknown(place: Place) -> Command:
    return pack(place, "--overwrite", label_kind=["a", "b", "unknown"] * 4)


@remedy("kept as a class beside", r"(--unknown None)", status=0)
def none_beside_grades(place: Place) -> Command:
    return pack(place, "--overwrite", label_oedema=["Mild", "Severe", "None"] * 4)


@remedy("such as --label-kind stage=class", r"such as (--label-kind stage=class)", instead=["--label-kind"])
def no_kind(place: Place) -> Command:
    return pack(place, "--label-kind", "stage=word", label_stage=["1", "2", "3"] * 4)


@remedy("is not FIELD=VALUE", r"such as (--dtype rna=VALUE)", {"VALUE": "float32"}, instead=["--dtype"])
def no_value(place: Place) -> Command:
    return pack(place, "--dtype", "float32", field_rna=vectors(place, RNG(0).normal(size=(ROWS, 4))))


@remedy("is not FIELD.KEY=VALUE", r"such as (--meaning patches.encoder=conch_v15)", instead=["--meaning"])
def no_meaning(place: Place) -> Command:
    bags = vectors(place, RNG(0).normal(size=(ROWS, 5, 8)).astype(np.float32))
    return pack(place, "--meaning", "patches=conch_v15", field_patches=bags)


# ------------------------------------------------------------------------------------------------------------- features


@remedy("leaves them out, --keep-features", r"(--not-features 'tissue_site')")
@remedy("leaves them out, --keep-features", r"(--keep-features 'tissue_site')")
def no_gene(place: Place) -> Command:
    names, rows = genes([*GENES, "tissue_site"])
    return pack(place, field_rna=table(place, names, rows))


@remedy("leaves it out of tables, --keep-features", r"(--not-features 'GENEX')")
@remedy("leaves it out of tables, --keep-features", r"(--keep-features 'GENEX')")
def a_feature_that_is_the_label(place: Place) -> Command:
    age = [40 + i for i in range(ROWS)]
    names, rows = genes(GENES, age)
    return pack(place, label_age=age, field_rna=table(place, [*names, "GENEX"], rows))


@remedy("(the source glioma parts them)", r"keep one: (--not-features '\S+')")
def several_modalities(place: Place) -> Command:
    names, rows = genes([*(f"{g}_rnaseq" for g in GENES), *(f"{g}_cnv" for g in GENES[:4])])
    return pack(place, field_omics=table(place, names, rows))


@remedy("--duplicates first, mean, max or drop", r"(--duplicates first)")
@remedy("--duplicates first, mean, max or drop", r"(--duplicates )first", {"s ": "s mean"})
@remedy("--duplicates first, mean, max or drop", r"(--duplicates )first", {"s ": "s drop"})
def a_gene_twice(place: Place) -> Command:
    names, rows = genes([*GENES, "GENE0"])
    return pack(place, field_rna=table(place, names, rows))


@remedy("--keep-features NAMES keeps what is one", r"(--keep-features NAMES)", {"NAMES": "age"})
def no_feature_at_all(place: Place) -> Command:
    return pack(place, field_rna=table(place, ["age"], [[40 + i] for i in range(ROWS)]))


# ------------------------------------------------------------------------------------------------------------- the folder


@remedy("or give --overwrite to replace a data set", r"give (--overwrite)")
@remedy("choose another --out, or give", r"choose another (--out)", {"--out": "--out {folder}/other"})
def a_data_set_is_there(place: Place) -> Command:
    from tests.remedies.scenario import run

    command = pack(place)
    assert run(command)[0] == 0
    return command


@remedy("choose another --out", r"choose another (--out)", {"--out": "--out {folder}/other"})
def another_folder_is_there(place: Place) -> Command:
    (place.folder / "set").mkdir()
    (place.folder / "set" / "thesis.txt").write_text("mine")
    return pack(place, "--overwrite")


@remedy("a part of this path is a file", r"choose another (--out)", {"--out": "--out {folder}/other"})
def a_file_on_the_way(place: Place) -> Command:
    (place.folder / "set").write_text("mine")
    command = pack(place)
    return Command("shards", [*command.words, "--out", str(place.folder / "set" / "below")])


# --------------------------------------------------------------------------------------------------------------- triplets


@remedy(
    "give --out a name that ends in .npz",
    r"give (--out a name that ends in .npz)",
    {"a name that ends in .npz": "{folder}/t.npz"},
)
def triplets_in_a_table(place: Place) -> Command:
    return Command("shards", ["triplets", str(place.demo), "--out", str(place.folder / "t.csv")])


@remedy("give --overwrite to replace it, or another --out", r"give (--overwrite) to replace it")
def triplets_that_are_there(place: Place) -> Command:
    (place.folder / "t.npz").touch()
    return Command("shards", ["triplets", str(place.demo), "--out", str(place.folder / "t.npz")])

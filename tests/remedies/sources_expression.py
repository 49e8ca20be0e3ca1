"""Remedies of expression by GDC's STAR counts, Xena and cBioPortal: what a column, a sheet or a table's name says of its values."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.remedies.files import moved, removed, replaced
from tests.remedies.scenario import Command, Place, remedy
from tests.shards.test_bags import CASES, tables, write
from tests.shards.test_expression_layouts import OLD, SAID, SAMPLES, file_of, matrix, row, sheet, star

SHEET = "gdc_sample_sheet.2025-05-22.tsv"


def files(place: Place) -> None:
    for i in range(8):
        star(place.folder / "rna" / f"id{i}" / file_of(i), i)


def gdc(place: Place, *more: str, expression: Path | None = None) -> Command:
    """Bags and labels of eight cases with a file of STAR counts for each."""
    write(place.folder / "b")
    files(place)
    labels = tables(place.folder)[1]
    if expression is None:
        sheet(place.folder, [row(i, f"{c}-01A") for i, c in enumerate(CASES)], OLD)
    words = [
        "--features",
        str(place.folder / "b"),
        labels,
        "--expression",
        str(expression or place.folder / "rna"),
        *more,
    ]
    return Command("source", ["tcga_nsclc", *words, "--out", str(place.folder / "out"), "--overwrite"])


@remedy("say which: --expression-column tpm_unstranded", r"which: (--expression-column tpm_unstranded)")
def a_column_that_nobody_named(place: Place) -> Command:
    return gdc(place, SAID[1])


@remedy("say it: --expression-transform log2p1", r"it: (--expression-transform log2p1)")
@remedy("say it: --expression-transform log2p1", r"or (--expression-transform none)")
def a_transform_that_nobody_named(place: Place) -> Command:
    return gdc(place, SAID[0])


@remedy("give GDC's with --sample-sheet FILE", r"with (--sample-sheet FILE)", {"FILE": "{folder}/sheet"})
def no_sample_sheet(place: Place) -> Command:
    command = gdc(place, *SAID)
    moved(SHEET, "sheet")(place)
    return command


@remedy("give the folder into which the files of this", r"(give the folder into which the files)", mend=files)
def files_that_are_elsewhere(place: Place) -> Command:
    command = gdc(place, *SAID)
    shutil.rmtree(place.folder / "rna")
    (place.folder / "rna").mkdir()
    return command


@remedy(
    "mend the line, or download the sample sheet again",
    r"(mend the line)",
    mend=replaced(SHEET, f"{CASES[3]}-01A\tSolid Tissue Normal", f"{CASES[3]}-01A\tPrimary Tumor"),
)
def a_tumour_that_is_called_normal(place: Place) -> Command:
    command = gdc(place, *SAID)
    replaced(SHEET, f"{CASES[3]}-01A\tPrimary Tumor", f"{CASES[3]}-01A\tSolid Tissue Normal")(place)
    return command


@remedy("keep one of these files", r"(keep one of these files)", mend=removed(f"rna/y/{file_of(2)}"))
def a_file_that_is_there_twice(place: Place) -> Command:
    command = gdc(place, *SAID)
    star(place.folder / "rna" / "y" / file_of(2), 2)
    moved(f"rna/id2/{file_of(2)}", f"rna/x/{file_of(2)}")(place)
    return command


@remedy("download the files again: those of GDC's", r"(download the files again)", mend=files)
def files_of_another_kind(place: Place) -> Command:
    command = gdc(place, *SAID)
    for i in range(8):
        (place.folder / "rna" / f"id{i}" / file_of(i)).write_text("ENSG1\t5\nENSG2\t7\n")
    return command


@remedy(
    "give --expression the folder of such files, or", r"give (--expression the folder)", {"the folder": "{folder}/rna"}
)
def one_file_in_place_of_the_folder(place: Place) -> Command:
    command = gdc(place, *SAID)
    at = command.words.index("--expression") + 1
    one = str(place.folder / "rna" / "id0" / file_of(0))
    return Command("source", [*command.words[:at], one, *command.words[at + 1 :]])


@remedy(
    "leave --expression-transform ",
    r"(leave --expression-transform log2p1 out)",
    instead=["--expression-transform"],
    mend=lambda p: None,
)
def a_logarithm_taken_twice(place: Place) -> Command:
    table = matrix(place.folder / "TCGA-LUAD.star_tpm.tsv.gz", SAMPLES)
    return gdc(place, "--expression-transform", "log2p1", expression=table)


@remedy("for values before that --transform ", r"before that (--transform rna=log2p1)")
def no_logarithms_at_all(place: Place) -> Command:
    return gdc(place, expression=matrix(place.folder / "TCGA-LUAD.star_tpm.tsv.gz", SAMPLES, high=9000.0))


@remedy("expression: nothing says its unit; state it: ", r"it: (--meaning rna.unit=TPM)", status=0)
def a_unit_that_nothing_says(place: Place) -> Command:
    return gdc(place, expression=matrix(place.folder / "t.tsv", SAMPLES))


def cohorts(place: Place, second: str, samples: list[str], *more: str) -> Command:
    """Two matrices of different patients, of which the second is called so."""
    matrix(place.folder / "TCGA-LUAD.star_tpm.tsv.gz", SAMPLES[:4])
    matrix(place.folder / second, samples)
    command = gdc(place, *more, expression=place.folder / "TCGA-LUAD.star_tpm.tsv.gz")
    at = command.words.index("--expression") + 2
    return Command("source", [*command.words[:at], str(place.folder / second), *command.words[at:]])


def others(place: Place) -> None:
    matrix(place.folder / "TCGA-LUSC.star_tpm.tsv.gz", SAMPLES[4:8])


@remedy("give the table of each cohort once", r"(give the table of each cohort once)", mend=others)
def a_sample_in_two_tables(place: Place) -> Command:
    return cohorts(place, "TCGA-LUSC.star_tpm.tsv.gz", SAMPLES[3:8])


def of_one_unit(place: Place) -> None:
    (place.folder / "t.tsv.json").write_text('{"unit": "log2(tpm+1)"}')


@remedy("give tables of one unit and transform", r"(give tables of one unit)", mend=of_one_unit)
def tables_of_two_units(place: Place) -> Command:
    return cohorts(place, "t.tsv", SAMPLES[4:8])


@remedy("leave out what is not in all of them", r"all of them: (--not-features 'NAME,NAME')", {"NAME,NAME": "G2,H2"})
def genes_of_another_release(place: Place) -> Command:
    command = cohorts(place, "TCGA-LUSC.star_tpm.tsv", SAMPLES[4:8])
    table = place.folder / "TCGA-LUSC.star_tpm.tsv"
    table.write_text(table.read_text().replace("G2", "H2"))
    return command


def of_one_form(place: Place) -> None:
    for name in ("l1.csv", "l2.csv"):
        (place.folder / name).write_text(
            "case,kind\n" + "".join(f"{c},a\n" for c in (CASES[:4], CASES[4:])[name == "l2.csv"])
        )


@remedy("give tables of one form", r"(give tables of one form)", mend=of_one_form)
def tables_of_labels_of_two_forms(place: Place) -> Command:
    command = gdc(place, expression=matrix(place.folder / "t.tsv", SAMPLES))
    of_one_form(place)
    (place.folder / "l2.csv").write_text((place.folder / "l2.csv").read_text().replace("case", "patient"))
    words = [w for w in command.words if not w.startswith("--labels")]
    return Command("source", [*words, "--labels", *(str(place.folder / n) for n in ("l1.csv", "l2.csv"))])

"""Remedies of `source cxr_reports --per study`: studies, views, and lines of a study that contradict each other."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.remedies.files import replaced, table, text, without_line
from tests.remedies.scenario import Command, Place, remedy
from tests.remedies.sources_films import META, published, source
from tests.shards.test_cxr_published import picture

LISTED = {"mimic-cxr-2.0.0": "{folder}/m/mimic-cxr-2.0.0"}


def films(place: Place, *more: str, drop: str = "", **cells: str) -> Command:
    """Two films a study, of a patient each; `cells` stand in the second line of the first study."""
    rows = []
    for i in range(20):
        picture(place.folder / f"f{i}.png", i)
        row = {
            "image": f"f{i}.png", "patient": f"p{i // 2}", "study": f"e{i // 2}", "view": ("PA", "LATERAL")[i % 2],
            "text": f"The heart is of size {i // 2}.", "split": "train" if i < 14 else "val" if i < 16 else "test",
            "age": str(50 + i // 2), "again": f"e{i // 2}", "seen": ("PA", "LATERAL")[i % 2],
        }  # fmt: skip
        rows.append({k: v for k, v in row.items() if k != drop})
    rows[1] |= cells
    return source(place, table(place.folder / "t.csv", rows), "--per", "study", *more)


def listed(place: Place, name: str, *more: str) -> Command:
    return published(place, name, "--per", "study", *more)


# ---------------------------------------------------------------------------------------------------------------- studies


@remedy("add --per study, or leave ", r"add (--per study)")
@remedy("add --per study, or leave ", r"or leave (--view-order) out", {"--view-order": ""}, instead=["--view-order"])
def options_of_studies_for_images(place: Place) -> Command:
    command = films(place)
    return Command("source", [w for w in command.words if w not in ("--per", "study")] + ["--view-order", "listed"])


@remedy("name it with --study-column, ", r"name it with (--study-column)", {"-column": "-column again"})
@remedy("or pack a sample an image: --per image", r"(--per image)")
def no_column_of_studies(place: Place) -> Command:
    return films(place, drop="study")


@remedy(
    "name the column of studies with --study-column", r"studies with (--study-column)", {"-column": "-column again"}
)
def no_line_has_a_study(place: Place) -> Command:
    command = films(place)
    path = Path(command.words[2])
    lines = path.read_text().splitlines()
    for i in range(10):
        lines = [line.replace(f",e{i},", ",,", 1) for line in lines]
    path.write_text("\n".join(lines) + "\n")
    return command


@remedy(
    "mend the column, or name another one with --study-column",
    r"(mend the column)",
    mend=replaced("m/list.csv", ",50000001,files/p10/p10000000/s50000000/", ",50000000,files/p10/p10000000/s50000000/"),
)
@remedy(
    "mend the column, or name another one with --study-column",
    r"another one with (--study-column)",
    {"-column": "-column exam"},
)
def a_column_that_parts_the_folders(place: Place) -> Command:
    command = listed(place, "cxr-record-list.csv.gz", "--views", str(place.folder / "m" / META))
    path = place.folder / "m" / "list.csv"
    rows = list(csv.DictReader(text(place.folder / "m" / "cxr-record-list.csv.gz").splitlines()))
    rows = [r | {"exam": r["study_id"]} for r in rows]
    rows[0] |= {"study_id": "50000001"}
    return Command("source", ["cxr_reports", "--csv", str(table(path, rows)), *command.words[3:]])


# ------------------------------------------------------------------------------------------------------------------ views


@remedy(
    "name it with --view-column, or give MIMIC's metadata", r"name it with (--view-column)", {"-column": "-column seen"}
)
@remedy("take the images of a study as the table lists them: --view-order", r"lists them: (--view-order listed)")
def no_column_of_views(place: Place) -> Command:
    return films(place, drop="view")


@remedy("give MIMIC's metadata as --views", r"as (--views \S+gz)", LISTED)
def a_list_without_views(place: Place) -> Command:
    return listed(place, "IMAGE_FILENAMES")


@remedy("give --view-order position --views", r"give (--view-order position --views \S+gz)", LISTED)
def reports_as_listed(place: Place) -> Command:
    return listed(place, "cxr-study-list.csv.gz", "--view-order", "listed")


@remedy("give MIMIC's metadata as --views", r"Fix: give MIMIC's metadata as (--views \S+gz)", LISTED)
def another_table_than_the_metadata(place: Place) -> Command:
    return listed(place, "IMAGE_FILENAMES", "--views", str(place.folder / "m" / "mimic-cxr-2.0.0-split.csv.gz"))


# --------------------------------------------------------------------------------------------------------- contradictions


@remedy(
    "keep one text for all images of a study, or name the column of studies",
    r"(keep one text for all images of a study)",
    mend=replaced("t.csv", "Another report.", "The heart is of size 0."),
)
def two_reports(place: Place) -> Command:
    return films(place, text="Another report.")


@remedy(
    "put all images of a study into one split",
    r"(put all images of a study into one split)",
    mend=replaced("t.csv", ",test,50", ",train,50"),
)
def a_study_in_two_splits(place: Place) -> Command:
    return films(place, "--split-column", "split", split="test")


@remedy("out with --label-columns", r"out with (--label-columns)", {"-columns": "-columns split"})
def a_label_of_single_images(place: Place) -> Command:
    return films(place, "--label-columns", "age", age="77")


@remedy("keep one line of each image", r"(keep one line of each image)", mend=without_line("t.csv", "f0.png"))
def an_image_on_two_lines(place: Place) -> Command:
    return films(place, image="f0.png")

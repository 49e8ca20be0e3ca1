"""Remedies of survival from clinical tables: which columns, which unit, which word is the event."""

from __future__ import annotations

from tests.remedies.files import replaced
from tests.remedies.scenario import Command, Place, remedy
from tests.shards.test_bags import CASES, tables, write

CBIO = "PATIENT_ID,OS_MONTHS,OS_STATUS"
XENA = "sample,OS.time,OS"
OWN = "PATIENT_ID,t_days,dead"
NAMED = ("--survival-time", "t_days", "--survival-event", "dead")


def clinical(place: Place, header: str, *more: str, words: tuple[str, str] = ("1", "0")) -> Command:
    """Bags and expression of eight cases, with times and events under this header."""
    write(place.folder / "b")
    lines = [f"{c},{20 + i},{words[i % 2]}" for i, c in enumerate(CASES)]
    (place.folder / "c.csv").write_text(header + "\n" + "\n".join(lines) + "\n")
    files = ["--features", str(place.folder / "b"), tables(place.folder)[0], "--survival", str(place.folder / "c.csv")]
    return Command("source", ["tcga_nsclc", *files, *more, "--out", str(place.folder / "out"), "--overwrite"])


COLUMNS = {"--survival-time COLUMN": "--survival-time t_days", "--survival-event COLUMN": "--survival-event dead"}


@remedy("name them: --survival-time COLUMN", r"them: (--survival-time COLUMN --survival-event COLUMN)", COLUMNS)
def columns_that_are_not_known(place: Place) -> Command:
    return clinical(place, OWN)


@remedy("say it: --survival-unit days", r"it: (--survival-unit days)")
def a_time_without_a_unit(place: Place) -> Command:
    return clinical(place, XENA)


@remedy("leave it out, or give --survival-unit ", r"give (--survival-unit months)", instead=["--survival-unit"])
def a_unit_against_the_name(place: Place) -> Command:
    return clinical(place, CBIO, "--survival-unit", "days")


@remedy("say it: --event-value WORD", r"it: (--event-value WORD)", {"WORD": "x"})
def words_that_do_not_tell(place: Place) -> Command:
    return clinical(place, OWN, *NAMED, words=("x", "y"))


@remedy(
    "give --event-value one of its cells: ",
    r"give (--event-value one of its cells: x)",
    {"one of its cells: ": ""},
    instead=["--event-value"],
)
def a_word_that_nobody_has(place: Place) -> Command:
    return clinical(place, OWN, *NAMED, "--event-value", "z", words=("x", "y"))


@remedy("mend the cell, or its unit", r"(mend the cell)", mend=replaced("c.csv", ",soon,", ",21,"))
def a_time_that_is_no_number(place: Place) -> Command:
    command = clinical(place, CBIO)
    replaced("c.csv", ",21,", ",soon,")(place)
    return command


OF_OTHERS = "both must name cases by TCGA barcode"


@remedy(OF_OTHERS, f"({OF_OTHERS})", mend=lambda p: clinical(p, CBIO))
def survival_of_others(place: Place) -> Command:
    command = clinical(place, CBIO)
    replaced("c.csv", "TCGA-1", "TCGA-3")(place)
    return command


@remedy(
    "give one with a column of barcodes (GDC", r"(give one with a column of barcodes)", mend=lambda p: clinical(p, CBIO)
)
def survival_of_nobody(place: Place) -> Command:
    command = clinical(place, CBIO)
    replaced("c.csv", "TCGA-", "CASE-")(place)
    return command


@remedy("mend the lines in which they differ", r"(mend the lines)", mend=lambda p: clinical(p, CBIO))
def two_columns_of_cases(place: Place) -> Command:
    command = clinical(place, CBIO)
    text = f"PATIENT_ID,sample,OS_MONTHS,OS_STATUS\n{CASES[0]},{CASES[1]}-01,3,1\n"
    (place.folder / "c.csv").write_text(text)
    return command


@remedy("give one by --labels FILE, or survival alone", r"by (--labels FILE)", {"FILE": "{folder}/labels.csv"})
@remedy("give one by --labels FILE, or survival alone", r"by (--survival FILE)", {"FILE": "{folder}/c.csv"})
def no_labels_of_any_kind(place: Place) -> Command:
    command = clinical(place, CBIO)
    at = command.words.index("--survival")
    return Command("source", [*command.words[:at], *command.words[at + 2 :]])

"""Survival from the clinical tables of GDC, cBioPortal, Xena and MCAT: times with a unit that is said, events by word or code."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from shards.__main__ import main
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.sources._survival import Survival, options, survival_of
from tests.shards.test_bags import CASES, tables, write

A, B, C, D = CASES[:4]
TABLES = {
    "cbioportal": (
        "#Patient Identifier\tOverall Survival (Months)\tOverall Survival Status\n#STRING\tNUMBER\tSTRING\n#1\t1\t1\n"
        "PATIENT_ID\tOS_MONTHS\tOS_STATUS\tDSS_MONTHS\tDSS_STATUS\n"
        f"{A}\t12.5\t1:DECEASED\t12.5\t0:ALIVE OR DEAD TUMOR FREE\n{B}\t30\t0:LIVING\t30\t0:ALIVE OR DEAD TUMOR FREE\n"
        f"{C}\t\t0:LIVING\t3\t1:DEAD WITH TUMOR\n"
    ),
    "xena": (
        "sample\t_PATIENT\tOS\tOS.time\tRedaction\n"
        f"{A}-01\t{A}\t1\t400\t\n{A}-11\t{A}\t1\t400\t\n{B}-01\t{B}\t0\t900\t\n{C}-01\t{C}\t0\t-3\t\n{D}-01\t{D}\tNA\t5\t\n"
    ),
    "gdc": (
        "project_id\tcase_id\tcase_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\n"
        f"TCGA-LUAD\tuuid-1\t{A}\tDead\t400\t'--\nTCGA-LUAD\tuuid-1\t{A}\tDead\t400\t'--\n"
        f"TCGA-LUAD\tuuid-2\t{B}\tAlive\t'--\t900\nTCGA-LUAD\tuuid-2\t{B}\tAlive\t'--\t120\n"
        f"TCGA-LUAD\tuuid-3\t{C}\tDead\t'--\t12\nTCGA-LUAD\tuuid-4\t{D}\tNot Reported\t'--\t7\n"
    ),
    "mcat": f"case_id,slide_id,survival_months,censorship\n{A},s1,13.1,0\n{A},s2,13.1,0\n{B},s3,40,1\n",
}  # fmt: skip
TABLES["gdc 2024"] = TABLES["gdc"].replace("case_submitter_id", "cases.submitter_id").replace(
    "vital_status\tdays_to_death\tdays", "demographic.vital_status\tdemographic.days_to_death\tdiagnoses.days"
)  # fmt: skip


def read(
    folder: Path, content: str, *more: str, cases: list[str] | None = None
) -> tuple[Survival, list[tuple[str, str]]]:
    (folder / "clinical").write_text(content)
    parser = argparse.ArgumentParser()
    options(parser)
    left: list[tuple[str, str]] = []
    found = survival_of(parser.parse_args([f"--survival={folder / 'clinical'}", *more]), cases or CASES[:4], left)
    assert found is not None
    return found, left


def refused(folder: Path, content: str, *more: str) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, *more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "more", "time", "known", "left"),
    [
        ("cbioportal", (), "os_months", {A: (12.5, True), B: (30, False)}, {C: "no survival: no OS_MONTHS"}),
        ("cbioportal", ("--endpoint=DSS",), "dss_months", {A: (12.5, False), B: (30, False), C: (3, True)}, {}),
        (
            "xena", ("--survival-unit=days",), "os_days", {A: (400, True), B: (900, False)},
            {C: "no survival: a time before 0 (OS.time -3)", D: "no survival: no OS"},
        ),
        (
            "gdc", (), "os_days", {A: (400, True), B: (900, False)},
            {C: "no survival: no days_to_death", D: "no survival: no vital_status"},
        ),
        ("mcat", (), "os_months", {A: (13.1, True), B: (40, False)}, {}),
    ],
)  # fmt: skip
def test_tables_as_they_are_published(tmp_path: Path, table: str, more, time: str, known: dict, left: dict) -> None:
    found, unmatched = read(tmp_path, TABLES[table], *more)
    assert (found.time, found.of_case) == (time, known)
    assert dict(unmatched) == left


def test_gdcs_newer_names_of_columns(tmp_path: Path) -> None:
    assert read(tmp_path, TABLES["gdc 2024"])[0].of_case == {A: (400, True), B: (900, False)}


def test_what_was_decided_is_said(tmp_path: Path) -> None:
    notes = "\n".join(read(tmp_path, TABLES["mcat"])[0].notes)
    assert "'0' is the event, since the column is named for the censored" in notes
    assert "OS: known of 2 of 4 cases, 1 with the event" in notes
    assert "'1:DECEASED' is the event, by its code" in "\n".join(read(tmp_path, TABLES["cbioportal"])[0].notes)


OWN = ("--survival-time=t_days", "--survival-event=dead")
WORDED = f"case,t_days,dead\n{A},1,x\n{B},2,y\n"
HEAD = "case,OS_MONTHS,OS_STATUS\n"
BOTH = f"case,OS_MONTHS,OS_STATUS,OS,OS.time\n{A},3,1:DECEASED,1,90\n"


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (TABLES["xena"], (), "column 'OS.time': does not say its unit. Fix: say it: --survival-unit days"),
        (TABLES["cbioportal"], ("--survival-unit=days",), "is said to be days, and its name says months"),
        (TABLES["cbioportal"], ("--endpoint=PFI",), "no columns of PFI that are known"),
        (TABLES["cbioportal"], ("--survival-time=OS_MONTHS",), "a column of times without one of events"),
        (WORDED, OWN, "nothing tells which of 'x', 'y' is the event"),
        (WORDED, (*OWN, "--event-value=z"), "no cell 'z'"),
        (WORDED, ("--survival-time=days", "--survival-event=dead"), "no column 'days' (--survival-time)"),
        (f"{HEAD}{A},3600,1:DECEASED\n{B},1,0:LIVING\n", (), "OS_MONTHS is '3600', over a century of months"),
        (f"{HEAD}{A},soon,1:DECEASED\n{B},1,0:LIVING\n", (), "OS_MONTHS is 'soon', no number"),
        (f"{HEAD}{A},3,1:DECEASED\n{A},4,1:DECEASED\n{B},4,0:LIVING\n", (), f"lines of '{A}' differ: 3 event (clinical line 2); 4"),
        (f"{HEAD}p1,3,1:DECEASED\n", (), "no column of TCGA barcodes"),
        (f"case,other,OS_MONTHS,OS_STATUS\n{A},{B},3,1:DECEASED\n", (), "case, other name different cases"),
        (BOTH, (), "several columns of OS: 'OS_MONTHS' with 'OS_STATUS' and 'OS.time' with 'OS'"),
        (f"{HEAD}TCGA-99-9999,3,1:DECEASED\n", (), "joined nobody"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(tmp_path: Path, content: str, more, message: str) -> None:
    assert message in refused(tmp_path, content, *more)


def test_words_that_do_not_tell_take_an_option(tmp_path: Path) -> None:
    table = f"case,DFS_MONTHS,DFS_STATUS\n{A},3,Recurred/Progressed\n{B},4,DiseaseFree\n"
    more = ("--endpoint=DFS", "--event-value=Recurred/Progressed")
    assert read(tmp_path, table, *more)[0].of_case == {A: (3, True), B: (4, False)}


def test_survival_alone_labels_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Without --labels; a patient whose survival is not known stays, without these labels."""
    write(tmp_path / "b")
    lines = [f"{c}\t{10 + i}\t{('0:LIVING', '1:DECEASED')[i % 2]}" for i, c in enumerate(CASES[:7])]
    (tmp_path / "c.txt").write_text("PATIENT_ID\tOS_MONTHS\tOS_STATUS\n" + "\n".join(lines) + "\n")
    words = [f"--features={tmp_path / 'b'}", tables(tmp_path)[0], f"--out={tmp_path / 'out'}"]
    assert main(["source", "tcga_nsclc", *words, f"--survival={tmp_path / 'c.txt'}"]) == 0
    assert "OS: known of 7 of 8 cases, 3 with the event" in capsys.readouterr().out
    with Dataset.open(tmp_path / "out") as data:
        told = [(r.labels["os_months"], r.labels["os_event"]) for r in data]
        assert told[:2] == [(10.0, "censored"), (11.0, "event")]
        assert told[7] == (None, None)
        assert data.info.labels["os_months"].kind == "number"
    assert main(["source", "tcga_nsclc", *words, "--overwrite"]) == 2
    assert "no table of labels" in capsys.readouterr().err

"""One form a person: which spellings are one, which are two, and what every split and table makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import sources

from shards.check.lint import lint
from shards.errors import DataError
from shards.format.info import load_info
from shards.format.seal import SampleRow, hash_files
from shards.pack.entry_checks import entry_problems
from shards.pack.manifest import Entry, Manifest, one_name_each
from shards.pack.split import leaks, resplit
from shards.read.dataset import Dataset
from shards.sources._people import reconciled
from shards.tables.identity import (
    APART,
    PLAIN,
    barcode,
    chromosome,
    damage,
    person,
    person_forms,
    sample,
    study,
)
from shards.tables.joins import Side, partners

ONE = [
    ("p10000032", "10000032", "P10000032", "10000032.0", " 10000032 ", "patient10000032", "0010000032", "p-10000032"),
    ("TCGA-05-4244", "TCGA.05.4244.01A", "tcga_05_4244_19960909", "TCGA-05-4244-01Z-00-DX1.a1b2.svs", "TCGA–05–4244"),
    ("GTEX-1117F", "GTEX.1117F.0226.SM.5GZZ7", "gtex-1117f"),
    ("TARGET-20-PABCDE", "TARGET-20-PABCDE-09A-01R"),
    ("C3L-00104", "C3L-00104-21"),
    ("demo-0001", "Demo-0001", "demo-0001\u200b", "\ufeffdemo-0001", "DEMO-0001"),
    ("img_7", "IMG_7.png", "img_7.JPEG"),
    ("anna k", "Anna  K", " anna\u00a0k"),
    ("sub-01", "Subject 1", "01", "1", "1.00"),
]


@pytest.mark.parametrize("names", ONE, ids=lambda n: n[0])
def test_spellings_of_one_person(names: tuple[str, ...]) -> None:
    assert len({person(n) for n in names}) == 1, [person(n) for n in names]


def test_different_people_stay_different() -> None:
    names = [
        "1",
        "10",
        "100",
        "0.1",
        "1.5",
        "1_1",
        "1-1",
        "a1",
        "a01",
        "pa1",
        "p",
        "p1a",
        "demo-1",
        "demo-01",
        "patient",
    ]
    names += [
        "TCGA-05-4244",
        "TCGA-05-42445",
        "TCGA-05-4245",
        "TCGA",
        "GTEX-1117F",
        "GTEX-1117G",
        "C3L-00104",
        "C3N-00104",
    ]
    assert len({person(n) for n in names}) == len(names)


def test_a_form_is_its_own_form_and_plain_names_are_theirs() -> None:
    every = [n for names in ONE for n in names] + ["x", "7", "0", "00", "007", "a_b-c", "Z9", "p7", "tcga", "s12"]
    for name in every:
        assert person(person(name)) == person(name)
    plain = pc.match_substring_regex(pa.array(every), f"^{PLAIN}$").to_pylist()
    assert all(person(n) == n for n, p in zip(every, plain, strict=True) if p)
    assert any(plain)
    assert not all(plain)


def test_doubled_ids_are_found_in_another_data_set_but_are_another_name_in_a_join() -> None:
    assert person("1001_1001") != person("1001")
    assert set(person_forms("1001_1001")) & set(person_forms("p1001"))
    assert not set(person_forms("1_1001")) & set(person_forms("1001"))


def test_other_names() -> None:
    assert sample("a/b/IMG_1.PNG") == sample("img_1") == sample("c\\img_1.jpg")
    assert study("s50414267") == study("50414267.0") == study(" 50414267")
    assert barcode("TCGA.05.4244.01A") == barcode("TCGA_05_4244_19960909") == "TCGA-05-4244"
    assert barcode("GTEX-1117F") is None
    same = [
        ("1", "01", "chr1", "Chr1", "CHR01", "1.0", b"1"),
        ("X", "23", "chrX", "0X"),
        ("Y", "24"),
        ("XY", "25", "PAR1"),
    ]
    for codes in [*same, ("MT", "26", "M", "chrM", "0M")]:
        assert {chromosome(c) for c in codes} == {codes[0]}
    assert [chromosome(c) for c in ("0", "", "chrUn_KI270302v1", "22")] == ["0", "", "UN_KI270302V1", "22"]


def joined(
    mine: list[str], theirs: list[str] | dict[str, str], **more: bool | None
) -> tuple[dict[str, str], list[str]]:
    return partners("--x", Side.of("a", mine), Side.of("b", theirs), "mend", **more)  # type: ignore[arg-type]


def test_what_a_join_came_to() -> None:
    ids = [f"{i}" for i in range(1, 11)]
    pairs, lines = joined(ids, [f"p{i}" for i in ids])
    assert pairs["3"] == "p3"
    assert lines == ["--x: 10 of 10 of a joined 10 of 10 of b"]
    (line,) = joined(ids, ["1", "2", "Z"])[1]
    assert line == "--x: 2 of 10 of a joined 2 of 3 of b. UNDER HALF: without a partner are '3' of a, 'Z' of b"
    (line,) = joined(["1", "2"], [*ids, *"uvwxyz"])[1]
    assert line.endswith("UNDER HALF: without a partner are nobody left of a, '3' of b")
    with pytest.raises(
        DataError, match=r"--x: joined nobody: none of 10 .* 1 of b \(a has '1', b has 'ukb'\). Fix: mend"
    ):
        joined(ids, ["ukb"])
    with pytest.raises(DataError, match="b has nothing"):
        joined(ids, [])


def test_two_lines_of_one_person_are_refused_where_they_decide() -> None:
    with pytest.raises(DataError, match=r"1 people stand twice, in two spellings: 'P1' \(line 2\) and '01' \(line 7\)"):
        joined(["1", "2"], {"P1": "line 2", "2": "line 3", "01": "line 7"})
    assert joined(["2"], {"P1": "line 2", "2": "line 3", "01": "line 7"})[0] == {"2": "2"}, "of nobody here"


def test_ids_that_a_program_changed_are_read_only_when_asked() -> None:
    ids = ["1000", "1001", "1002"]
    with pytest.raises(
        DataError, match=r"3 ids are decimal numbers, .*: '1000.0' here, '1000' in a. Fix: .* --repair-ids"
    ):
        joined(ids, ["1000.0", "1001.0", "1002.0"], repair=False)
    assert joined(ids, ["1000.0", "1001.0"], repair=True)[0] == {"1000": "1000.0", "1001": "1001.0"}
    assert joined(["1000.0"], ["1000.0"], repair=False)[0] == {"1000.0": "1000.0"}, "the same on both sides"
    with pytest.raises(DataError, match=r"joined nobody.*'1000_1000'.* --double-id does: give --repair-ids"):
        joined(ids, ["1000_1000", "1001_1001"], repair=False)
    assert joined(ids, ["1000_1000", "7_7"], repair=True)[0] == {"1000": "1000_1000"}
    assert damage("1.2E+07") == "are cut to a few digits, as spreadsheets do to long numbers"
    assert damage("12e4") is None, "part of a hash"


def entry(number: int, patient: str, split: str | None = None) -> Entry:
    return Entry(f"line {number}", f"s{number}", patient, split=split, texts={"report": "words"})


def test_a_manifest_gives_each_person_one_name_and_says_so() -> None:
    names = ["p1", "1", "1.0", "2", "P3"]
    made, notes = one_name_each(Manifest([entry(i, n) for i, n in enumerate(names)], {}))
    assert [e.patient for e in made.entries] == ["p1", "p1", "p1", "2", "P3"]
    assert len(notes) == 1
    assert "1 patients are written in several ways" in notes[0]
    assert "'1' = 'p1'" in notes[0]
    assert one_name_each(Manifest([entry(0, "a"), entry(1, "b")], {}))[1] == []
    (problem,) = entry_problems([entry(0, "p1", "train"), entry(1, "01", "test")])
    assert "patient '01' is in test here and in train as 'p1' in line 0" in str(problem)


def test_splits_keep_spellings_together(tmp_path: Path) -> None:
    """A data set whose people are written in two ways each: refused where they are torn, and mended by `split`."""
    folder = sources(tmp_path / "in", count=20).pack(tmp_path / "out")
    table = folder / "splits.csv"
    lines = table.read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    rows = [
        f"{s},{('p' if i % 2 else '0') + str(i // 2)},{('train', 'test')[i % 2]}" for i, (s, _, _) in enumerate(cells)
    ]
    table.write_text("\n".join([lines[0], *rows]) + "\n")
    info = load_info(folder)
    from shards.format.info import save_info

    save_info(folder, info.model_copy(update={"files": hash_files(folder), "splits": {"train": 10, "test": 10}}))
    with pytest.raises(
        DataError, match=r"10 patients stand in two splits .*; 10 names are another spelling of one before"
    ):
        _ = Dataset.open(folder).patients
    problems = [p for p in lint(folder).problems if "is in" in p.what]
    assert len(problems) == 10
    assert "patient '00 = p0' is in test and train" in str(problems[0])
    assert resplit(folder, {"train": 0.5, "test": 0.5}).patients == 10
    data = Dataset.open(folder)
    assert len(set(data.patients)) == 10
    assert len(np_unique(data)) == 10
    split_of: dict[str, set[str]] = {}
    for line in table.read_text().splitlines()[1:]:
        _, patient, split = line.split(",")
        split_of.setdefault(person(patient), set()).add(split)
    assert all(len(s) == 1 for s in split_of.values())


def np_unique(data: Dataset) -> set[int]:
    return set(data.patient_codes.tolist())


def test_leaks_name_every_spelling() -> None:
    row = SampleRow("a", "p7", "train", {})
    (found,) = leaks([row, replace(row, sample="b", patient="7.0", split="val"), replace(row, sample="c", patient="8")])
    assert found.what == "patient 'p7 = 7.0' is in train and val"


def test_column_and_folder(tmp_path: Path) -> None:
    folders, lines = ["p1", "p1", "p2", ""], ["a", "b", "c", "d"]
    assert reconciled(["1", "", "nan", "9"], folders, None, lines, tmp_path) == ["p1", "p1", "p2", "9"]
    with pytest.raises(DataError, match=r"1 of 2 lines name another patient than .* \(c: '5', folder 'p2'\)"):
        reconciled(["1.0", "", "5", "9"], folders, None, lines, tmp_path)
    assert reconciled(["anna", "", "ben", "cy"], folders, "who", lines, tmp_path) == ["anna", "anna", "ben", "cy"]
    with pytest.raises(DataError, match="1 folders of one patient have images of several"):
        reconciled(["anna", "ben", "cy", ""], folders, "who", lines, tmp_path)
    with pytest.raises(DataError, match="1 lines without a patient"):
        reconciled(["anna", "", "", ""], folders, "who", lines, tmp_path)


@pytest.mark.parametrize("pattern", APART)
def test_names_of_one_form_are_as_many_people(pattern: str) -> None:
    """So that a table of them need not be looked at name by name."""

    @given(st.sets(st.from_regex(pattern, fullmatch=True, alphabet=st.characters(codec="ascii")), max_size=40))
    def distinct(names: set[str]) -> None:
        assert len({person(n) for n in names}) == len(names)

    distinct()

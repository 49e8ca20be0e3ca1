"""Rows and twins in columns: what lists and dictionaries of them said, in a few bytes a sample."""

from __future__ import annotations

import random
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shards.check.twins import Twins
from shards.errors import DataError
from shards.format.info import LabelInfo
from shards.format.sample_rows import SampleRow, SampleRows
from shards.format.seal import read_rows, write_rows

LABELS = {"kind": LabelInfo(kind="class", classes=("a", "b")), "age": LabelInfo(kind="number")}


def some(count: int) -> list[SampleRow]:
    rng = random.Random(count)
    labels = [{}, {"kind": "a"}, {"age": 0.0}, {"kind": "b", "age": 70.25}]
    return [
        SampleRow(f"s{i:07}ä", f"p{i // 3}", rng.choice(["train", "test"]), rng.choice(labels)) for i in range(count)
    ]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = some(40)
    write_rows(tmp_path, rows, LABELS)
    found = read_rows(tmp_path, LABELS)
    assert list(found) == rows
    assert (found[-1], found[3:7]) == (rows[-1], rows[3:7])
    assert all(dict(a.labels) == b.labels and len(a.labels) == len(b.labels) for a, b in zip(found, rows, strict=True))
    assert [r.patient for r in found.respelt(str.upper)] == [r.patient.upper() for r in rows]
    assert {r.split for r in found.moved(["val"], np.zeros(len(found.patients.names)))} == {"val"}
    assert list(found) == rows, "others share the columns"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("splits.csv", lambda t: t.replace("s0000003ä,p1,", "s0000003ä,"), "line 5 has another number of cells"),
        ("labels.csv", lambda t: t.replace("s0000003ä", "other"), "list different samples"),
        ("labels.csv", lambda t: t[: t.index("s0000003ä")], "list different samples"),
        ("labels.csv", lambda t: t.replace("\n", "\nmore,,\n", 1), "list different samples"),
    ],
)
def test_tables_that_do_not_agree_are_refused(
    tmp_path: Path, name: str, change: Callable[[str], str], said: str
) -> None:
    write_rows(tmp_path, some(9), LABELS)
    (tmp_path / name).write_text(change((tmp_path / name).read_text()))
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path, LABELS)


def test_what_is_no_text_is_told_before_a_line_with_too_few_cells(tmp_path: Path) -> None:
    write_rows(tmp_path, some(9), LABELS)
    with open(tmp_path / "splits.csv", "ab") as f:
        f.write(b"a,b\n" + b"x" * 20_000 + b"\n\xff\n")
    with pytest.raises(DataError, match="not a CSV in UTF-8"):
        read_rows(tmp_path, LABELS)


def test_a_row_is_found_by_its_sample_and_the_last_of_a_name() -> None:
    rows = SampleRows({})
    for sample, patient in (("a", "1"), ("b", "2"), ("a", "3")):
        rows.name(sample, patient, "train")
    rows.settle()
    found = rows.by_sample()
    assert [found[k].patient for k in "ab"] == ["3", "2"]
    assert "c" not in found
    assert found.get("c") is None


@pytest.mark.parametrize("seed", range(5))
def test_twins_are_those_that_a_dictionary_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.check.twins.PART", 7)
    rng = random.Random(seed)
    marks = [rng.choice(b"abcdefgh").to_bytes(16, "little") for _ in range(12)] + [rng.randbytes(16) for _ in range(9)]
    rng.shuffle(marks)
    whole, wanted = Twins(16), defaultdict(list)
    for begin in (0, 5, 13):
        part = Twins(16)
        for at, mark in enumerate(marks[begin : {0: 5, 5: 13, 13: None}[begin]]):
            part.add(mark, at, at % 3)
            wanted[mark].append((begin + at, at % 3))
        whole.merge(part, begin)
    assert [*whole.groups()] == [(m, found) for m, found in wanted.items() if len(found) > 1]
    assert [*Twins(16).groups()] == []


def test_memory_of_rows_and_marks(tmp_path: Path) -> None:
    """Bytes a sample: rows were 430, marks 315."""
    count = 6000
    write_rows(tmp_path, some(count), LABELS)
    tracemalloc.start()
    try:
        rows, twins = read_rows(tmp_path, LABELS), Twins(32)
        held_rows = tracemalloc.get_traced_memory()[0]
        for i in range(count):
            twins.add(i.to_bytes(32, "little"), i, 0)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(rows) == count
    assert held_rows < 160 * count
    assert held - held_rows < 60 * count

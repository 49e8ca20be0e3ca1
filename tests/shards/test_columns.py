"""Cells and names in a few bytes each: what lists and dictionaries of them say."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from shards.errors import DataError
from shards.tables import columns
from shards.tables.column_table import read_columns
from shards.tables.columns import Column, Marks, Texts, Words
from shards.tables.keyed import read_rows


def test_texts_end_to_end() -> None:
    one, two = Texts(), Texts()
    for text in ("", "ä", "b" * 300):
        one.append(text)
        two.append(text[::-1] + "!")
    one += two
    assert one[:] == ["", "ä", "b" * 300, "!", "ä!", "b" * 300 + "!"]
    assert one[-1] == one[5]
    with pytest.raises(IndexError):
        one[6]


@pytest.mark.parametrize("count", [1, 127, 128, 129, 40_000])
def test_words_of_any_number(count: int) -> None:
    words, wanted = Words(), [f"w{i % count}" if i % 5 else None for i in range(count + 9)]
    for word in wanted:
        words.append(word)
    assert [words[i] for i in range(len(words))] == wanted


@pytest.mark.parametrize("different", [3, 200, 6000])
def test_a_column_is_what_was_put_into_it(different: int) -> None:
    """6,000 different cells are kept as texts, a few as words; places of another column are taken of either."""
    cells = [f"c{i % different}" if i % 11 else "" for i in range(6000)]
    column, place_N = Column(cells), np.array([5, -1, 0, 5999, 17])
    assert [*column] == cells
    assert column.blanks
    assert isinstance(column._kept, Texts) == (different == 6000)
    assert [*column.taken(place_N)] == [cells[5], "", "", cells[5999], cells[17]]
    assert [*column.taken(place_N, Column(["", "", "x", "y", ""]))] == [cells[5], "", "x", "y", cells[17]]
    assert [*Column.of("a", 3), *Column.of("a", 0)] == ["a"] * 3
    assert not Column(["a"]).blanks
    taken = column.taken(place_N)
    taken.append("new")
    assert (taken[-1], len(column)) == ("new", 6000)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alike", [False, True])
def test_marks_find_what_dictionaries_do(seed: int, alike: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the first halves of marks are alike for all."""
    if alike:
        mark = columns._mark
        monkeypatch.setattr(columns, "_mark", lambda parts: (0, mark(parts)[0]))
    rng = random.Random(seed)
    names = [(rng.choice("abc"), rng.choice(["", "1", "22", "a"])) for _ in range(40)]
    others = [(rng.choice("abcd"), rng.choice(["", "1", "22", "333"])) for _ in range(40)]
    one, two = Marks(), Marks()
    for pair, other in zip(names, others, strict=True):
        one.append(*pair)
        two.append(*other)
    first = {n: names.index(n) for n in names}
    found = one.found()
    assert one.first().tolist() == [first[n] for n in names]
    assert found.all_of(two).tolist() == [first.get(o, -1) for o in others] == [found(*o) for o in others]
    assert [[*found.every(*o)] for o in others] == [[i for i, n in enumerate(names) if n == o] for o in others]
    assert Marks().found().all_of(two).tolist() == [-1] * 40
    assert not len(Marks().first())


def test_parts_of_a_name_do_not_run_together() -> None:
    one = Marks()
    for pair in (("a", "bc"), ("ab", "c"), ("1:a", "")):
        one.append(*pair)
    assert one.first().tolist() == [0, 1, 2]
    assert one.found()("1:a", "") == 2


TABLE = """# a comment
id,kind,note
a,x,"two
lines"
b,,1
a,x,2
a,x,2
b,,1
"""


def test_a_table_in_columns_says_what_its_rows_do(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(TABLE)
    read, rows = read_columns(path, key=["id"]), read_rows(path)
    assert [dict(read[i]) for i in range(len(read))] == [dict(r) for r in rows]
    assert [read.where(i) for i in range(len(read))] == [r.where for r in rows]
    assert read.first_key == ("a",)
    assert read.differing() == [("a", "t.csv line 3", "t.csv line 6")]
    assert {*read_columns(path, only=lambda c: c == "kind").columns} == {"kind"}
    path.write_text("id\n")
    with pytest.raises(DataError, match="no line below its header"):
        read_columns(path)
    path.write_text("id,kind\na,b,c\nd,e\n")
    with pytest.raises(DataError, match="no column note") as caught:
        read_columns(path, ["note"])
    assert "1 lines have another number of cells" in str(caught.value)


def test_memory_of_a_table(tmp_path: Path) -> None:
    """Of a film's name, its person and fourteen findings: rows as dictionaries were 1,500 bytes."""
    path, count = tmp_path / "t.csv", 6000
    findings = ",".join(f"f{i}" for i in range(14))
    lines = [f"{i:036x},{i // 4},{','.join(str((i + k) % 3) for k in range(14))}" for i in range(count)]
    path.write_text("\n".join([f"film,person,{findings}", *lines, ""]))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        read = read_columns(path)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(read) == count
    assert held < 110 * count


def test_rows_without_a_key_name_nobody(tmp_path: Path) -> None:
    """Such as the lines below a table that give its means."""
    table = tmp_path / "people.csv"
    table.write_text("id,age\np1,40\n,mean 45\n,sd 5\np1,41\n")
    read = read_columns(table, key=["id"])
    assert [key for key, *_ in read.differing()] == ["p1"]

"""Columns of a data set without pyarrow's own conversions: the same values as with them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from shards.format import tables
from shards.format.tables import Names, strings

WORDS = ["", "a", "Łódź", "名前", "", "long " * 99]


@pytest.mark.parametrize("words", [[], [""], WORDS])
def test_strings_are_what_pyarrow_makes_of_them(words: list[str]) -> None:
    made = strings(words)
    made.validate(full=True)
    assert made.equals(pa.array(words, pa.string()))


@pytest.mark.parametrize(
    "column",
    [pa.array([3, -1, 7], pa.int32()), pa.array([0.5, float("nan"), 2.0, 1.0]), pa.array([True, False, True] * 5)],
    ids=str,
)
def test_numbers_are_what_pyarrow_makes_of_them(column: pa.Array) -> None:
    for part in (column, column[1:], column[1:2], column[:0]):
        there = part.to_numpy(zero_copy_only=False)
        mine = tables._numbers(part)
        assert mine.dtype == there.dtype
        np.testing.assert_array_equal(mine, there)
    with pytest.raises(AssertionError):
        tables._numbers(pa.array([1, None]))


def test_names_are_found_where_they_stand() -> None:
    names = Names(pa.array(["x", "Łódź", "y"])[1:])
    assert names.find(["y", "z", "Łódź", ""]).tolist() == [1, -1, 0, -1]
    assert names.find([]).tolist() == []
    assert tables._codes(pa.array(["b", "", "a"]), ["a", "b"]).tolist() == [1, -1, 0]
    assert tables._is(pa.array(["b", "", "a"]), "").tolist() == [False, True, False]

"""Names that repeat, encoded: what a sorted set and a dictionary say of them, in a few bytes a name."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest

from shards.tables import encoded
from shards.tables.columns import Texts
from shards.tables.encoded import Encoded

KINDS = {
    "plain": ["p{}", "{}", "TCGA-{}"],
    "other letters": ["ä{}", "\U0001f600{}", "\uffee{}", "\ud800{}", "", "a{}"],
    "zeros": ["a{}\0", "a{}", "\0{}"],
    "one long": ["p{}", "x" * 300 + "{}"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 50, 700])
def test_names_are_those_of_a_sorted_set(kind: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "PART", 64)
    rng = random.Random(count)
    names = [rng.choice(KINDS[kind]).format(rng.randint(0, count // 3)) for _ in range(count)]
    found, wanted = Encoded(iter(names)), sorted(set(names))
    assert [*found.names] == wanted
    assert found.code_N.tolist() == [wanted.index(n) for n in names]
    assert [*found] == names
    assert (found[count // 2 :], [found[i] for i in range(-count, 0)]) == (names[count // 2 :], names)
    assert [*Encoded(Texts(names)).names] == wanted


def test_memory_of_names() -> None:
    """Bytes a name: words with a dictionary of them were 170 for each that does not repeat."""
    count = 20_000
    order = np.random.default_rng(0).permutation(count)
    tracemalloc.start()
    try:
        held = Encoded(f"p{i:07}" for i in order)
        now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(held.names) == count
    assert now < 24 * count
    assert most < 64 * count

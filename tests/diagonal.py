"""Which cells of a grid of systems x something are run always; the others have the marker `grid` (`make grid`).

A grid of all systems grows with every one of them. Always run are: all columns for a few (by default the four systems that medpair began
with and the first of each family); for every other one two (or as many as are asked for), which move on from system to system, so that each
column is met by several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from models.registry import families, method_names

FIRST = {"gimp", "mgi", "mrm_record", "mrm_relation"}


def cells(
    columns: Sequence[str], rows: Sequence[str] | None = None, of_each: int = 2, whole: set[str] | None = None
) -> Iterator[Any]:
    """A parameter (system, column) a cell; of `whole`, and of none else, all columns."""
    if whole is None:
        whole = FIRST | {names[0] for names in families().values() if names}
    n = len(columns)
    for i, name in enumerate(rows if rows is not None else method_names()):
        always = {columns[(i + k * n // of_each) % n] for k in range(of_each)}
        for column in columns:
            marks = [] if name in whole or column in always else [pytest.mark.grid]
            yield pytest.param(name, column, marks=marks, id=f"{name}-{column}")


def few(rows: Sequence[str]) -> Iterator[Any]:
    """A parameter a system: always run are the four of before and the last by name."""
    for name in rows:
        yield pytest.param(name, marks=[] if name in FIRST or name == rows[-1] else [pytest.mark.grid])

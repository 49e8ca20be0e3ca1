"""What the first look at a manifest settles, and how a cell of it is named."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

from shards.errors import Problem
from shards.pack.entries import Entry
from shards.pack.files import Files
from shards.pack.reference import Reference
from shards.pack.rows import Rows


def cell_place(entry: Entry, name: str, ref: Reference) -> str:
    """Names a cell of the manifest."""
    return f"{entry.where} ('{entry.sample}'), field '{name}', {ref.text}"


@dataclass
class PackPlan:
    """What the inspection settled: everything that converting one sample needs."""

    rows: Rows
    dtypes: dict[str, str]
    fills: dict[str, np.ndarray]
    vocab: dict[str, list[str]]
    notes: list[str]
    problems: list[Problem]
    refused: set[tuple[str, str]]  # (sample, field) that a problem already speaks of
    files: Files
    manifest: str  # digest of the entries
    sizes: array[int]  # bytes that are expected of each sample
    meanings: dict[str, dict[str, str]] = field(default_factory=dict)
    not_features: list[tuple[str, str]] = field(default_factory=list)  # (row or column of a table, why)

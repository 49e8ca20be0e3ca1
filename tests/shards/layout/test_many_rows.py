"""A set of many samples: what a layout holds of each until all are found does not grow with what its tables say of them."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from shards.pack import entries
from tests.shards.layout import miniatures as mini
from tests.shards.layout.test_layouts import find

LAYOUT = """
about: films
licence: internal
citation: none
tables:
  films: {file: films.csv, columns: [film, person]}
  splits: {file: splits.csv, columns: [film, split], join: {film: "{film}"}}
  findings: {file: findings.csv, columns: [study], join: {study: "{study}"}}
rows: [films]
sample: "{film}"
patient: "{person}"
fields:
  image: {path: ["films/p*/{film}.jpg"], every: ["films/p*/*.jpg"]}
  report: {text: ["{study}", "of {person}"]}
labels:
  - columns: [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11]
    words: {1: present, 0: absent}
view: {columns: [view]}
exclude: [{column: view, drop: [CT], why: no film}]
splits: {column: split}
"""


def films(folder: Path, count: int) -> tuple[Path, Path]:
    root, layout = folder / "root", folder / "mine.yaml"
    for p in range(4):
        (root / "films" / f"p{p}").mkdir(parents=True)
    names = [f"{i:044x}" for i in range(count)]
    for i, name in enumerate(names):
        (root / "films" / f"p{i % 4}" / f"{name}.jpg").touch()
    rows = [
        {"film": n, "person": f"1{i // 4:07d}", "study": f"s{i // 2}", "view": ("PA", "L", "CT")[i % 7 % 3]}
        for i, n in enumerate(names)
    ]
    mini.table(root / "films.csv", rows)
    mini.table(root / "splits.csv", [{"film": n, "split": "train"} for n in reversed(names)])
    found = [{"study": f"s{i}", **{f"f{k}": (i + k) % 2 for k in range(12)}} for i in range((count + 1) // 2)]
    mini.table(root / "findings.csv", found)
    layout.write_text(LAYOUT)
    return root, layout


def peak(folder: Path, count: int) -> int:
    root, layout = films(folder, count)
    # What waits to be collected would depend on all that the process has done before.
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        found = find(str(layout), root)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(found.manifest.entries) + len(found.unmatched) == count
    return held


def test_memory_of_a_sample_until_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes a sample; they were 4,000. What is not of samples is the same for any number of them."""
    monkeypatch.setattr(entries, "KEPT", 256)
    peak(tmp_path / "first", 300)
    few, many = peak(tmp_path / "few", 1500), peak(tmp_path / "many", 4500)
    assert (many - few) / 3000 < 220

"""Manifests that do not stay in memory: the same data set and the same refusals as of one that does, and memory that does not grow."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import pytest
from manifests import Sources, snapshot, sources

from shards.errors import DataError
from shards.pack import entries, pack
from shards.pack.entries import Entries, Entry
from shards.pack.files import Files
from shards.pack.manifest import read_manifest
from shards.pack.options import PackOptions
from shards.pack.split_lists import by_lists
from shards.tables.repeats import distinct, repeated, torn


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "KEPT", 4)
    monkeypatch.setattr(entries, "BLOCK", 3)


def made(folder: Path) -> Sources:
    """Labels of both kinds with gaps, a person in two spellings, a bag of two parts, a column of a table."""
    given = sources(folder, 17)
    for i, row in enumerate(given.rows):
        row["label:stage:class"] = str(i % 3)
        row["label:age"] = "NA" if i == 5 else f"{40 + i}.50"
    given.rows[9]["patient"] = "  P0" + given.rows[8]["patient"].lstrip("pP0") if given.rows[8]["patient"] else ""
    given.write()
    return given


def packed(given: Sources, out: Path, jobs: int = 1) -> tuple[dict[str, bytes], list[str]]:
    _, notes = pack.pack(given.manifest, out, PackOptions(name="set", shard_samples=5, jobs=jobs, stratify="stage"))
    return snapshot(out), notes


def test_the_same_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = made(tmp_path / "in")
    whole = packed(given, tmp_path / "whole")
    assert isinstance(read_manifest(given.manifest).entries, list)
    monkeypatch.setattr(entries, "KEPT", 4)
    monkeypatch.setattr(entries, "BLOCK", 3)
    found = read_manifest(given.manifest).entries
    assert isinstance(found, Entries)
    assert (len(found), found[-1], found[2:14:5]) == (17, list(found)[16], list(found)[2:14:5])
    assert packed(given, tmp_path / "parts") == whole
    assert packed(given, tmp_path / "shared", jobs=2) == whole


def test_the_same_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = made(tmp_path / "in")
    for i, row in enumerate(given.rows):
        row |= {"split": ("train", "val", "test")[i % 3], "label:age": "old" if i == 7 else row["label:age"]}
    given.rows[12] |= {"sample": given.rows[3]["sample"], "patient": given.rows[1]["patient"]}
    given.rows[14]["patient"] = ""
    given.write()
    with pytest.raises(DataError) as whole:
        packed(given, tmp_path / "whole")
    monkeypatch.setattr(entries, "KEPT", 4)
    monkeypatch.setattr(entries, "BLOCK", 3)
    with pytest.raises(DataError) as parts:
        packed(given, tmp_path / "parts")
    assert str(parts.value) == str(whole.value)
    for what in ("stands twice", "is in train here", "no patient", "is 'old', not a number"):
        assert what in str(parts.value)


def test_lists_of_splits(tmp_path: Path, few: None) -> None:
    manifest = read_manifest(made(tmp_path / "in").manifest)
    names = [e.sample for e in manifest.entries]
    for split, of in (("train", names[:12:2]), ("test", names[12:])):
        (tmp_path / split).write_text("\n".join(of))
    lists = {"train": tmp_path / "train", "test": tmp_path / "test"}
    listed, _, out = by_lists(manifest, lists, accept=True)
    assert [(e.sample, e.split) for e in listed.entries] == [(n, "train") for n in names[:12:2]] + [
        (n, "test") for n in names[12:]
    ]
    assert [n for n, _ in out] == names[1:12:2]


def test_a_full_disk_of_temporary_files_is_told(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Entries()
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(entries.tempfile, "TemporaryFile", lambda buffering: full)
        for i in range(6):
            kept.append(Entry("line", f"s{i}", "p"))
        with pytest.raises(DataError, match="No space left"):
            kept.append(Entry("line", "s6", "p"))


def reports(path: Path, count: int) -> Path:
    with open(path, "w", newline="") as f:
        rows = ([f"s{i:07d}", f"p{i // 3:07d}", f"The lungs are clear, film {i}.", "ab"[i % 2]] for i in range(count))
        csv.writer(f).writerows([["sample", "patient", "text:report", "label:x:class"], *rows])
    return path


def test_memory_of_a_packing_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "KEPT", 64)
    monkeypatch.setattr(entries, "BLOCK", 64)
    peaks = []
    for count in (300, 300, 900):  # once to load everything
        manifest = reports(tmp_path / f"{count}.csv", count)
        tracemalloc.start()
        pack.pack(manifest, tmp_path / "out", PackOptions(name="set", shard_samples=100, overwrite=True))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / 600 < 200, f"{peaks} bytes"


def test_files_are_remembered_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.pack.files.LATELY", 2)
    paths = [tmp_path / n for n in ("a.jpg", "b.jpg", "c.png")]
    for i, path in enumerate(paths):
        path.write_bytes(bytes(10**i))
    files = Files()
    assert [files.note(p) for p in (*paths, paths[2])] == [1, 10, 100, 100]
    assert (files.bytes, files.jpeg_bytes) == (111, 11)
    made = files.digest()
    files.note(paths[0])
    assert files.bytes == 112, "long ago"
    assert files.digest() != made


def test_what_stands_several_times() -> None:
    assert repeated(["a", "b", "a", "c", "a"]) == {hash("a")}
    assert torn([("p", "x"), ("q", "x"), ("p", "x"), ("p", "y")]) == {hash("p")}
    assert torn([]) == repeated([]) == set()
    assert (distinct([]), distinct("abca"), distinct("a")) == (0, 3, 1)
